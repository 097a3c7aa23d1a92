"""pytest plugin: `pytest --pyargs moespec_conformance --impl X` runs the suite's cases as tests."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from moespec_conformance.runner import Runner

MODULE = "moespec_conformance.test_conformance"
CHILD: "pytest.StashKey[Runner]" = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flags."""
    group = parser.getgroup("moespec")
    group.addoption(
        "--impl", default=None, help="implementation to check: path.py[:Name], NAME[:ARG], module:Name or cmd:PROGRAM"
    )
    group.addoption("--moespec-examples", type=int, default=50, help="inputs drawn for each property")
    group.addoption("--moespec-save", type=Path, default=None, help="folder that keeps what breaks a property")
    group.addoption("--moespec-profile", action="append", default=None, help="profile to check (may be repeated)")


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark that ties tests to clauses."""
    config.addinivalue_line("markers", "spec(clause): the clause this test is about")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is under test."""
    address = config.getoption("--impl")
    return [f"moespec: checking {address}"] if address else []


@pytest.fixture(scope="session")
def implementation(request: pytest.FixtureRequest) -> "Runner":
    """The implementation, in a process of its own."""
    return child_of(request.config)


def child_of(config: pytest.Config) -> "Runner":
    """The implementation's process, started when it is first needed."""
    from moespec_conformance.program import started  # noqa: PLC0415 - other people's pytest runs load this plugin too

    if CHILD not in config.stash:
        config.stash[CHILD] = started(address_of(config))
        config.add_cleanup(config.stash[CHILD].close)
    return config.stash[CHILD]


def address_of(config: pytest.Config) -> str:
    """The implementation asked for; the reference if none is."""
    return str(config.getoption("--impl") or "reference")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case of the profiles, and for each property."""
    if metafunc.function.__module__ == MODULE and "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases_of(metafunc.config))
    if metafunc.function.__module__ == MODULE and "property_name" in metafunc.fixturenames:
        metafunc.parametrize("property_name", properties())


def properties() -> list[Any]:
    """Every property, by its name."""
    from moespec_conformance.properties import PROPERTIES  # noqa: PLC0415 - other people's pytest runs load this, too

    return [pytest.param(p.name, id=p.name, marks=marks_of(p.clauses)) for p in PROPERTIES.values()]


def marks_of(clauses: tuple[str, ...]) -> list[pytest.MarkDecorator]:
    """What a test is about."""
    return [pytest.mark.spec(clause) for clause in clauses]


def cases_of(config: pytest.Config) -> list[Any]:
    """The cases of the profiles that are asked for, or that the implementation names."""
    from moespec_conformance.checking import selected  # noqa: PLC0415 - likewise
    from moespec_conformance.protocol import ARITHMETIC  # noqa: PLC0415 - likewise

    profiles = config.getoption("--moespec-profile") or child_of(config).profiles
    cases: list[Any] = selected(profiles, tuple(ARITHMETIC), None, quick=False)
    return [pytest.param(c, id=c.id, marks=marks_of(c.clauses)) for c in cases]
