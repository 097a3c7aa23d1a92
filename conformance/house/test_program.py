"""Programs in any language: `cmd:PROGRAM`, and answers in files; whatever goes wrong there has its own name."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from test_check import moespec

from moespec_conformance.address import Usage
from moespec_conformance.asking import Question
from moespec_conformance.cases import all_cases
from moespec_conformance.cases.inputs import config
from moespec_conformance.checking import run
from moespec_conformance.program import Program
from moespec_conformance.protocol import Result

PROGRAM = Path(__file__).parent / "program.py"
ROW = all_cases()["expert-one-row"]


def address(way: str = "well") -> str:
    """The program, going wrong in some way."""
    return f"cmd:{shlex.join([sys.executable, '-W', 'ignore', str(PROGRAM), way])}"


def results(way: str, pattern: str = "expert-*row*", limit: float = 20.0) -> dict[str, Result]:
    """Results of the program, by case."""
    with closing(Program(address(way), limit)) as program:
        return {result.case: result for result in run(program, ops=["expert"], pattern=pattern).results}


def test_a_program_that_answers_well_conforms() -> None:
    """In every manner of asking; its name is what it says."""
    done = moespec("check", address(), "--op", "dispatch", "--jobs", "1")
    assert done.returncode == 0, done.stdout
    assert "program 1 (float32)" in done.stdout
    with closing(Program(address())) as program:
        assert run(program, ["relation"], ["expert", "gate"]).ok
        assert run(program, ["reject"], ["expert"]).ok


@pytest.mark.parametrize(
    ("way", "status", "says"),
    [
        ("crashes", "error", "SIGABRT"),
        ("exits", "error", "exit code 3"),
        ("prints", "fail", "b'hello'"),
        ("prints-a-number", "fail", "one JSON object a line"),
        ("prints-endlessly", "fail", "more than 65536 bytes"),
        ("prints-deep", "fail", "one JSON object a line"),
        ("prints-nul", "fail", "one JSON object a line"),
        ("another", "fail", "it answered 'another'"),
        ("odd-status", "fail", "status must be one of"),
        ("no-file", "fail", "No such file"),
        ("truncates", "fail", "cannot be read"),
        ("empty-file", "fail", "cannot be read"),
        ("links", "fail", "no regular file"),
        ("pipes", "fail", "no regular file"),
        ("makes-a-folder", "fail", "no regular file"),
        ("refused", "error", "because"),
        ("failed", "error", "because"),
        ("not_supported", "not_supported", "because"),
    ],
)
def test_what_goes_wrong_is_called_by_its_name(way: str, status: str, says: str) -> None:
    """None of it is a wrong number, and the next question finds the program started anew."""
    found = results(way, "expert-[no]*-row")
    assert {result.status for result in found.values()} == {status}
    assert all(says in result.message for result in found.values()), found


def test_a_hang_is_a_timeout_and_nothing_stays_behind(tmp_path: Path) -> None:
    """The process and all that it started are ended."""
    assert results("hangs", "expert-one-row", 2.0)["expert-one-row"].status == "timeout"
    mark = tmp_path / "pid"
    script = f"sleep 1000 & echo $! > {mark}; exec {shlex.join([sys.executable, str(PROGRAM), 'hangs'])}"
    with closing(Program(f"cmd:sh -c {shlex.quote(script)}", 3.0)) as program:
        asked = Question("expert", dict(ROW.config), ROW.inputs, "plain")
        assert program.ask(asked).happened == "timeout"
    pid = mark.read_text().strip()
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_the_command_says_what_cannot_be_started() -> None:
    """No program, one that is not there, one that says nothing of itself."""
    assert moespec("check", "cmd:").returncode == 2
    assert moespec("check", "cmd:/no/such/program").returncode == 2
    assert moespec("check", "cmd:true").returncode == 3
    with pytest.raises(Usage):
        Program("cmd:")


def test_a_question_does_not_say_which_case_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what it is about."""
    seen: list[dict[str, object]] = []
    tell = Program.tell

    def watched(self: Program, request: dict[str, object], limit: float) -> dict[str, object]:
        if "dir" in request:
            seen.append(json.loads((Path(str(request["dir"])) / "prompt.json").read_text()))
        return tell(self, request, limit)

    monkeypatch.setattr(Program, "tell", watched)
    assert results("well", "expert-one-row")["expert-one-row"].status == "pass"
    assert [set(prompt) for prompt in seen] == [{"format", "id", "op", "config", "arithmetic"}]
    assert seen[0]["id"] == "expert-1"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions about experts, answered."""
    folder = tmp_path_factory.mktemp("files") / "out"
    done = moespec("export", str(folder), "--op", "expert", "--case", "expert-*row*", "--profile", "deepseek-v3")
    assert done.returncode == 0, done.stderr
    return folder


def answer(folder: Path) -> None:
    """Let the program answer what lies in a folder."""
    subprocess.run([sys.executable, str(PROGRAM), str(folder)], check=True)


def test_questions_leave_without_answers(exported: Path) -> None:
    """No file but the prompts, the inputs and the list; no word of what is expected."""
    names = {path.name for path in exported.rglob("*") if path.is_file()}
    assert names == {"MANIFEST.json", "prompt.json", "in.safetensors"}
    assert moespec("export", str(exported)).returncode == 2  # not empty: nothing is written over
    assert moespec("export", str(exported.parent / "none"), "--op", "cast").returncode == 5


def test_answers_in_files_are_judged(exported: Path) -> None:
    """Unanswered is not judged; answered well is right; answered wrongly is wrong, and the bug has its name."""
    assert moespec("judge", str(exported)).returncode == 3
    answer(exported)
    assert moespec("judge", str(exported)).returncode == 0
    place = exported / "expert" / "expert-one-row"
    (place / "reply.json").write_text(json.dumps({"status": "not_supported", "reason": "no rows"}))
    done = moespec("judge", str(exported), "--name", "mine", "--report", str(exported.parent / "report"))
    assert "1 not_supported" in " ".join(done.stdout.split())
    (place / "reply.json").write_text("[]")
    assert moespec("judge", str(exported)).returncode == 1
    (place / "reply.json").unlink()
    (place / "prompt.json").write_text((place / "prompt.json").read_text().replace('"expert"', '"gate"'))
    assert moespec("judge", str(exported)).returncode == 4


def damaged(folder: Path) -> Iterator[str]:
    """Lists of questions that are not ours."""
    told = json.loads((folder / "MANIFEST.json").read_text())
    for change in (
        {"cases": ["../../etc"]},
        {"cases": []},
        {"cases": [told["cases"][0]] * 2},
        {"cases": 7},
        {"profiles": ["none"]},
        {"arithmetic": [{}]},
        {"format": "1.0"},
    ):
        yield json.dumps({**told, **change})
    yield from ("", "[", "7", "null", '{"format": NaN}')


def test_a_list_that_was_changed_is_damage(tmp_path: Path) -> None:
    """Paths out of the folder, cases twice, none, or no list at all: exit code 4."""
    folder = tmp_path / "out"
    moespec("export", str(folder), "--case", "expert-one-row")
    for content in list(damaged(folder)):
        (folder / "MANIFEST.json").write_text(content)
        assert moespec("judge", str(folder)).returncode == 4, content
    (folder / "MANIFEST.json").unlink()
    assert moespec("judge", str(folder)).returncode == 4
    assert moespec("judge", str(tmp_path / "none")).returncode == 2


def test_numbers_that_json_cannot_hold_are_words() -> None:
    """So that a config with infinity can be asked, and refused."""
    with closing(Program(address())) as program:
        asked = Question("expert", config("deepseek-v3", routed_scaling_factor=float("inf")), ROW.inputs, "plain")
        assert program.ask(asked).happened == "refused"
