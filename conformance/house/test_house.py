"""The rules of the house: clauses, code, cases and tests agree; imports point down; files and functions stay small."""

import ast
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from moespec_conformance.cases import FLOOR, PROFILES, all_cases
from moespec_conformance.spec import clauses

ROOT = Path(__file__).parents[2]
REFERENCE = sorted((ROOT / "reference/moespec").glob("*.py"))
SUITE = sorted((ROOT / "conformance/moespec_conformance").rglob("*.py"))
CLAUSE = re.compile(r"\b(?:ARR|CFG|GATE|EXP|DSP|RNK|MOE|NRM|LOS|CNT|BAL|CAP|ROU|FMT|QNT|ACC|LIN|MFP|OPT)-\d+\b")
FLOORS = [
    {"arrays", "fields", "recipes", "signatures_fp8"},
    {"formats"},
    {"fields_fp8", "quant", "accumulate", "storage"},
    {"config", "linear"},
    {
        "activation",
        "load",
        "shapes",
        "optim",
        "signatures_layout",
        "signatures_balance",
        "checks_layout",
        "checks_balance",
    },
    {"signatures", "hugging_face", "checks_fp8"},
    {"checks", "model_config", "router", "mixture", "ops_fp8", "signatures_trace"},
    {"gate", "expert", "dispatch", "weights", "deepseek", "norm", "loss", "balance", "bias_update", "capacity"},
    {"moe", "layouts", "ranks", "count", "deepseek_kin", "ops_norm", "ops_balance", "expert_choice", "hierarchical"},
    {"moe_ranks", "ops_layout", "ops_router", "expert_fp8"},
    {"ops_ranks", "ops_gate", "moe_fp8", "streamed"},
    {"ops_routing", "streamed_ranks"},
    {"ops_moe_fp8"},
    {"ops", "cost", "presets"},
    {"traffic"},
]


def ids_in(paths: list[Path]) -> set[str]:
    """Every clause id in these files."""
    return {clause for path in paths for clause in CLAUSE.findall(path.read_text(encoding="utf-8"))}


def test_every_clause_is_in_the_code_and_no_other() -> None:
    """SPEC.md and the sources speak of the same clauses."""
    code = ids_in(REFERENCE) | ids_in([path for path in SUITE if "cases" not in path.parts])
    assert set(clauses()) == code


def test_every_clause_has_a_case_and_every_case_a_clause() -> None:
    """A clause that nothing asks about, or a case about nothing, is a mistake."""
    asked = {clause for case in all_cases().values() for clause in case.clauses}
    counting = {clause for clause in clauses() if clause.startswith("CNT-")}  # about models: tests ask, not cases
    assert asked == set(clauses()) - counting
    assert counting <= set(marks())
    assert all(case.clauses for case in all_cases().values())


def marks() -> set[str]:
    """The clauses that tests are marked with."""
    files = Path(__file__).parent.glob("test_*.py")
    return {mark for path in files for mark in re.findall(r'mark.spec\("([^"]+)"\)', path.read_text(encoding="utf-8"))}


def test_marks_name_clauses() -> None:
    """A test's spec mark names a clause that exists."""
    assert marks()
    assert marks() <= set(clauses())


def test_names_in_spec_are_the_config_fields() -> None:
    """SPEC.md section 5 lists the fields that MoEConfig has."""
    from dataclasses import fields  # noqa: PLC0415

    from moespec.config import MoEConfig  # noqa: PLC0415

    text = (ROOT / "SPEC.md").read_text(encoding="utf-8")
    assert all(f"`{field.name}`" in text for field in fields(MoEConfig))


def test_imports_point_down() -> None:
    """A reference file imports only files of lower floors, numpy, and the standard library's typing tools."""
    level = {name: index for index, floor in enumerate(FLOORS) for name in floor}
    assert {path.stem for path in REFERENCE} == set(level) | {"__init__"}
    allowed = {"numpy", "typing", "math", "collections", "dataclasses"}
    stored = {"formats", "storage", "checks_fp8"}  # where codes look as others store them
    for path in (p for p in REFERENCE if p.stem != "__init__"):
        for name in imported(path):
            package, _, module = name.partition(".")
            if package == "moespec":
                assert level[module] < level[path.stem], f"{path.stem} imports {module}"
            else:
                known = package in allowed or (package == "ml_dtypes" and path.stem in stored)
                assert known, f"{path.stem} imports {name}"


def imported(path: Path) -> list[str]:
    """Modules that a file imports."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return found


def test_the_reference_never_imports_the_suite() -> None:
    """The judge depends on the judged, never the other way."""
    assert not [p.name for p in REFERENCE if "moespec_conformance" in p.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", REFERENCE + SUITE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sizes(path: Path) -> None:
    """Files of at most 300 lines (200 in the reference), functions of at most 40."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= (200 if path in REFERENCE else 300)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 40, f"{node.name} has {length} lines"


def test_backward_stands_under_its_forward() -> None:
    """Each backward follows its forward, and quotes what it undoes."""
    for name in (
        *("expert", "dispatch", "layouts", "ranks", "moe_ranks", "moe", "gate"),
        *("norm", "loss", "balance", "capacity", "expert_fp8", "moe_fp8", "streamed", "streamed_ranks"),
    ):
        text = (ROOT / f"reference/moespec/{name}.py").read_text(encoding="utf-8")
        functions = re.findall(r"^def (\w+)", text, re.MULTILINE)
        for backward in (f for f in functions if f.endswith("_backward")):
            what = backward.removesuffix("_backward")
            forward = f"{what}_forward" if f"{what}_forward" in functions else what
            assert functions.index(forward) < functions.index(backward)
            body = text[text.index(f"def {backward}") :].split("\ndef ")[0]
            assert " was: " in body, f"{backward} does not say what it undoes"


def test_profiles_and_floors_agree() -> None:
    """Every profile has a floor, no case is of an unknown one, and none has sunk to its floor by half."""
    assert set(FLOOR) == set(PROFILES)
    for name, floor in FLOOR.items():
        held = sum(name in case.profiles for case in all_cases().values())
        assert floor <= held <= 2 * floor, name
    assert all(set(case.profiles) <= set(PROFILES) for case in all_cases().values())


def test_cases_are_the_same_every_time() -> None:
    """Building a case twice gives the same bytes, read-only."""
    for case in list(all_cases().values())[::7]:
        first, second = case.build(), case.build()
        assert {k: v.tobytes() for k, v in first.items()} == {k: v.tobytes() for k, v in second.items()}
        assert not any(tensor.flags.writeable for tensor in case.inputs.values())


def test_code_in_spec_runs() -> None:
    """Every Python block of SPEC.md and README.md does what it says."""
    for name in ("SPEC.md", "README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(block, name, "exec"), {"np": np})  # noqa: S102 - our own text


def test_readme_shows_as_many_cases_as_there_are() -> None:
    """The table in README.md, op by op, and its sum."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    held = Counter(c.op for c in all_cases().values() if "deepseek-v3" in c.profiles and c.arithmetic == "float32")
    shown = {op: int(n) for op, n in re.findall(r"^(\w+) +(\d+) +\d+ +[\d.-]+$", text, re.MULTILINE)}
    assert shown == held
    assert f"{held.total()} of {held.total()} as it should be" in text


def test_documents_name_no_missing_file() -> None:
    """A path in a document is a file of the repository."""
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for path in re.findall(r"`((?:reference|conformance|examples|bench|golden|\.ci)/[\w./-]+)`", text):
            assert (ROOT / path).exists(), f"{name} names {path}"
