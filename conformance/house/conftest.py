"""Tests may import the folders that lie beside them, such as `planted`; and outputs of real tensor cores."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where recorded outputs of tensor cores lie, if they are at hand."""
    parser.addoption("--tensor-core-data", metavar="DIR", help="folder of NAME_FORMAT.npz, such as H100_E4M3.npz")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without that folder its test is not there: it neither passes nor skips."""
    if not config.getoption("--tensor-core-data"):
        left_out = [item for item in items if item.get_closest_marker("tensor_core")]
        items[:] = [item for item in items if item not in left_out]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
