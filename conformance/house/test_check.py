"""A run from end to end: adapters that behave and that do not, statuses, exit codes, files."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from moespec_conformance import check
from moespec_conformance.adapters.plain import Adapter as Plain
from moespec_conformance.adapters.reference import Adapter as Reference
from moespec_conformance.address import Usage, load
from moespec_conformance.cases import PROFILES, all_cases
from moespec_conformance.checking import Damaged, run, selected
from moespec_conformance.cli import main
from moespec_conformance.runner import Child

HERE = Path(__file__).parent
ODD = HERE / "odd_adapters.py"
EXAMPLES = HERE.parents[1] / "examples"


class Done(NamedTuple):
    """What a command left: its exit code and what it said."""

    returncode: int
    stdout: str
    stderr: str


def moespec(*arguments: str) -> Done:
    """The command, in this process; adapters still run in a child of theirs."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(arguments))
    code = ended.value.code
    return Done(code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue())


def of_odd(name: str, pattern: str = "expert-*row*", limit: float = 60.0) -> dict[str, Any]:
    """Results of a misbehaving adapter in a child process, by case."""
    child = Child(f"{ODD}:{name}", limit)
    try:
        report = run(child, ops=["expert"], pattern=pattern)
    finally:
        child.close()
    return {result.case: result for result in report.results} | {"report": report}


@pytest.mark.parametrize("adapter", [Reference, Plain], ids=["reference", "plain"])
def test_built_in_adapters_conform(adapter: Any) -> None:
    """Every profile that they name, with nothing left out; they name all that no batch decides."""
    assert set(adapter.profiles) >= set(PROFILES) - {"batch-invariant"}
    report = check(adapter())
    assert [r.case for r in report.results if r.status not in ("pass", "rejected_ok")] == []
    assert report.claimed


def test_plain_is_batch_invariant_and_blas_is_not() -> None:
    """Token by token gives the same bits in any batch; a matrix product of NumPy need not."""
    assert check(Plain(), "batch-invariant").claimed
    assert not check(Reference(), "batch-invariant").counts["error"]


def test_quick_is_a_part_of_the_whole() -> None:
    """quick leaves cases out, adds none, and claims nothing."""
    whole = selected(["deepseek-v3"], ["float32"], None, quick=False)
    quick = check(Reference(), "deepseek-v3", quick=True)
    assert {r.case for r in quick.results} < {case.id for case in whole}
    assert quick.ok
    assert not quick.claimed


def test_an_adapter_may_name_the_profiles_it_is_made_for() -> None:
    """They are the default, in this process, in a child, on the command line and in pytest; who asks decides."""
    mixtral = {"profiles": ("mixtral-8x7b", "mixtral-8x22b")}
    assert check(type("Made", (), mixtral), ops=["combine"]).profiles == mixtral["profiles"]
    assert check(type("Made", (), mixtral), "ties").profiles == ("ties",)
    assert check(type("Unsaid", (), {}), ops=["combine"]).profiles == ("deepseek-v3",)
    named = moespec("check", f"{ODD}:Mixtral", "--op", "expert")
    assert named.returncode == 0
    assert "mixtral-8x7b, mixtral-8x22b:" in " ".join(named.stdout.split())
    asked = moespec("check", f"{ODD}:Mixtral", "--op", "expert", "--case", "*-row", "--profile", "deepseek-v3")
    assert "deepseek-v3: 2 of 2" in " ".join(asked.stdout.split())
    assert moespec("check", f"{ODD}:Lost").returncode == 2


def test_pytest_asks_the_profiles_that_the_adapter_names(tmp_path: Path) -> None:
    """The cases of its own model, and of no other."""
    base = [sys.executable, "-m", "pytest", "--pyargs", "moespec_conformance", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*base, "--collect-only", "--impl", f"{ODD}:Mixtral"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    ids = [line for line in done.stdout.splitlines() if "test_case[" in line]
    assert ids, done.stdout
    assert all("mixtral" in line for line in ids), ids


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("Raises", "error", "raised"),
        ("Crashes", "error", "crashed"),
        ("Writes", "fail", "mutated"),
        ("Overwrites", "fail", "mutated"),
        ("Narrow", "fail", "shape"),
        ("Half", "fail", "dtype"),
        ("NaN", "fail", "nan"),
        ("Objects", "fail", "shape"),
        ("Inner", "fail", "shape"),
        ("Refuses", "error", "raised"),
        ("Declines", "not_supported", "bounded"),
    ],
)
def test_misbehaviour_has_its_own_status_and_the_run_goes_on(name: str, status: str, kind: str) -> None:
    """Each way to go wrong is called by its name, and the cases after it are judged."""
    results = of_odd(name)
    assert (results["expert-one-row"].status, results["expert-one-row"].kind) == (status, kind)
    if name in ("Raises", "Crashes"):
        assert results["expert-rows-300"].status == "pass"
        assert results["report"].exit_code == 3


def test_refusing_everything_is_not_rejecting() -> None:
    """A refusal counts only where the good input it was made of is answered."""
    child = Child(f"{ODD}:Refuses")
    try:
        report = run(child, ["reject"], ops=["expert"])
    finally:
        child.close()
    assert report.counts["rejected_ok"] == 0
    assert report.exit_code == 3


def test_a_file_may_bear_the_name_of_what_it_imports(tmp_path: Path) -> None:
    """An adapter in numpy.py still finds NumPy."""
    source = "import numpy\n\n\nclass Adapter:\n    name, version = 'mine', numpy.__version__\n"
    (tmp_path / "numpy.py").write_text(source)
    assert load(str(tmp_path / "numpy.py")).version == np.__version__


def test_a_hang_is_a_timeout_and_the_run_goes_on() -> None:
    """The child is killed and started anew."""
    results = of_odd("Hangs", limit=3.0)
    assert results["expert-one-row"].status == "timeout"
    assert results["expert-rows-127"].status == "pass"


def test_what_stays_of_a_first_call_shows() -> None:
    """Asked again means asked after others: what is kept of a call, be it the first, is wrong."""
    results = of_odd("Remembers", "expert-again")
    assert results["expert-again"].status == "fail"


def test_a_crash_says_by_which_signal() -> None:
    """And is an error, not a failure."""
    assert "SIGSEGV" in of_odd("Crashes", "expert-one-row")["expert-one-row"].message


def test_what_an_adapter_prints_is_not_taken_for_a_result() -> None:
    """stdout is ours."""
    done = moespec("check", f"{ODD}:Chatty", "--op", "expert", "--case", "expert-rows-*")
    assert done.returncode == 0
    assert "record" not in done.stdout


def test_the_example_with_the_leaking_bias_fails_on_gate_clauses() -> None:
    """Exit 1; the clause, the worst token and the command to repeat it are shown."""
    done = moespec("check", str(EXAMPLES / "buggy_gate.py"))
    assert done.returncode == 1
    said = " ".join(done.stdout.replace("│", " ").split())
    assert "GATE-6 A chosen expert's weight starts from its score, without the bias." in said
    assert "topk_weight[" in done.stdout
    assert "first wrong stage" in done.stdout
    assert "--case gate-bias-" in done.stdout
    again = moespec("check", str(EXAMPLES / "buggy_gate.py"), "--case", "gate-bias-zero")
    assert again.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("check", "nothing"), 2, "no adapter 'nothing'"),
        (("check", "no/such/file.py"), 2, "no file"),
        (("check", f"{ODD}:Nobody"), 2, "no Nobody there"),
        (("check", "cmd:./program"), 2, "cmd:"),
        (("check", "--profile", "gold"), 2, "no profile 'gold'"),
        (("check", "--op", "attention"), 2, "no op attention"),
        (("check", "--case", "no-such-case"), 5, "NOTHING SELECTED"),
        (("check", f"{ODD}:Declines"), 5, "NOTHING PASSED"),
        (("check", f"{ODD}:Broken"), 3, "nothing was judged"),
        (("check", f"{ODD}:Stranded"), 3, "no device"),
        (("explain", "GATE-99"), 2, "no clause, case or mutant"),
        (("list", "bugs"), 2, "no list of 'bugs'"),
        (("count", "gpt"), 2, "no preset 'gpt'"),
        (("golden", "--check", "--dir", "no-such-folder"), 2, "no folder"),
        (("frobnicate",), 2, "frobnicate"),
    ],
    ids=[
        *(
            "no-adapter",
            "no-file",
            "no-name",
            "cmd",
            "no-profile",
            "no-op",
            "no-case",
            "declines",
            "broken",
            "stranded",
        ),
        *("no-clause", "no-list", "no-preset", "no-folder", "no-verb"),
    ],
)
def test_exit_codes_tell_wrong_from_not_judged(arguments: tuple[str, ...], code: int, words: str) -> None:
    """2 usage, 3 adapter, 5 nothing: each with a sentence."""
    done = moespec(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout + done.stderr


def test_results_have_header_lines_and_footer(tmp_path: Path) -> None:
    """One line a case, in the published fields; counts at the end."""
    assert moespec("check", "--profile", "ties", "--report", str(tmp_path)).returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["record"] for line in (lines[0], lines[-1])] == ["header", "footer"]
    results = lines[1:-1]
    assert all(line["record"] == "result" for line in results)
    assert lines[-1]["counts"] == {"pass": len(results)}
    assert lines[-1]["exit_code"] == 0
    for field in ("case", "op", "clauses", "status", "kind", "error_over_bound", "stage", "suspects"):
        assert field in results[0]


def test_known_failures_are_told_apart(tmp_path: Path) -> None:
    """A known failure does not fail the run; one that has gone, or matches nothing, does under --strict."""
    known = tmp_path / "known.txt"
    known.write_text(
        "# ours\nxfail expert-one-row its last column is lost\nwaive expert-rows-* https://example.org/1 agreed\n"
    )
    common = ("--op", "expert", "--case", "expert-*row*", "--expected-failures", str(known))
    first = moespec("check", f"{ODD}:Narrow", *common)
    assert "1 fail" in first.stdout  # expert-no-row has the wrong shape as well
    assert first.returncode == 1
    known.write_text("xfail expert-*row* its last column is lost\n")
    assert moespec("check", f"{ODD}:Narrow", *common).returncode == 5
    assert moespec("check", "reference", *common).returncode == 0
    assert moespec("check", "reference", *common, "--strict").returncode == 1
    known.write_text("waive expert-* because\n")
    assert moespec("check", "reference", *common).returncode == 2


def test_a_shrunken_corpus_cannot_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer cases than the floor is damage, not success."""
    few = dict(list(all_cases().items())[:20])
    monkeypatch.setattr("moespec_conformance.checking.all_cases", lambda: few)
    with pytest.raises(Damaged, match="fewer than"):
        selected(["deepseek-v3"], ["float32"], None, quick=False)
    with pytest.raises(Usage):
        selected(["nothing"], ["float32"], None, quick=False)


@pytest.mark.parametrize("what", ["cases", "clauses", "profiles", "adapters"])
def test_lists_and_explanations(what: str) -> None:
    """Everything that is listed can be explained."""
    done = moespec("list", what)
    assert done.returncode == 0
    assert {"cases": "gate-ordinary", "clauses": "GATE-3", "profiles": "ties", "adapters": "plain"}[what] in done.stdout


def test_explain_a_clause_and_a_case() -> None:
    """A clause with its variants and cases; a case with its inputs and bounds."""
    clause, case = moespec("explain", "GATE-4"), moespec("explain", "gate-bias-minus-one")
    assert "Variants" in clause.stdout
    assert "gate-bias-minus-one" in clause.stdout
    assert "topk_weight" in case.stdout


def test_count_of_a_preset() -> None:
    """Exact numbers, for people and for programs."""
    assert "671,026,419,200" in moespec("count", "deepseek-v3").stdout
    assert json.loads(moespec("count", "deepseek-v3", "--json").stdout)["all"]["activated"] == 37_552_297_472


def test_pytest_runs_the_same_cases(tmp_path: Path) -> None:
    """`pytest --pyargs moespec_conformance --impl X` from any folder: passes, and fails for the buggy gate."""
    base = [
        sys.executable,
        "-m",
        "pytest",
        "--pyargs",
        "moespec_conformance",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        "-k",
    ]
    good = subprocess.run(
        [*base, "expert and row", "--impl", "plain", "--moespec-profile", "deepseek-v3"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert good.returncode == 0, good.stdout
    bad = [*base, "gate-bias-large", "--impl", str(EXAMPLES / "buggy_gate.py")]
    done = subprocess.run(bad, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "topk_weight" in done.stdout


def test_what_a_method_does_not_name_or_cannot_do_without_is_not_supported() -> None:
    """A gate that always wants a bias, and knows no replay, is asked only what it can answer."""

    class Picky:
        name, version = "picky", "1"

        def gate(self, config: dict[str, Any], *, x: Any, weight: Any, bias: Any) -> dict[str, Any]:
            return {"topk_idx": x, "topk_weight": weight, "bias": bias, "config": config}

    status = {r.case: (r.status, r.message) for r in check(Picky(), ops=["gate"]).results}
    assert status["gate-bias-absent"] == ("not_supported", "gate cannot do without bias")
    assert status["gate-replay-holes"] == ("not_supported", "gate takes no topk_idx")
    assert status["gate-ordinary"][0] == "fail"
