"""What the tests here measure goes into the store of `moespec bench` as well."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moespec_conformance.bench import store


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where to keep the run."""
    parser.addoption("--moespec-bench", metavar="FILE", help="keep what was measured, as `moespec bench --json` does")


@pytest.fixture(scope="session")
def kept(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """The rows of this run, written at its end."""
    rows = list[dict[str, Any]]()
    yield rows
    path = request.config.getoption("--moespec-bench")
    if path:
        store.keep(Path(path), {**store.about(), "rows": rows})
