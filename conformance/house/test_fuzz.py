"""What comes from outside: spoilt in any way, it is an error in words, and never a crash, a hang or a pass."""

import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fuzz_targets
import program
import pytest
from fuzz_atheris import NAMES
from fuzz_targets import TARGETS, numbers_in
from fuzzing import Told, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_check import moespec

from moespec_conformance import case_folder, golden, tensors
from moespec_conformance.address import Usage
from moespec_conformance.case_folder import case_from
from moespec_conformance.cases import all_cases
from moespec_conformance.foreign import object_in
from moespec_conformance.spec import home

RUNS = 300  # of each target; `fuzz_atheris.py` does more
COMES = {  # what must have come of some of them: a fuzzer that is refused at the door tests the door
    "answers": {"pass", "fail", "error", "rejected_ok"},
    "corpora": {"edit", "same", "remove", "link", "zero", "loop", "pipe", "folder", "add"},
    "manifests": {"compared", "damaged"},
    "folders": {"accepted", "refused"},
    "exported": {"whole", "damaged"},
    "lines": {"unreadable", "done", "ValueError", "Broken"},
    "known_failures": {"read", "refused"},
    "runs": {"read", "refused"},
}


class Hang(BaseException):
    """No error that anyone would catch."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if it takes longer."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_gets_past(name: str) -> None:
    """No crash, no hang, no false pass; and every kind of outcome was seen."""
    came: Counter[str] = Counter()
    came[TARGETS[name](b"")] += 1

    @settings(derandomize=True, database=None, max_examples=RUNS, deadline=None, suppress_health_check=[*HealthCheck])
    @given(st.binary(min_size=1, max_size=64))
    def run(data: bytes) -> None:
        with within(10):
            came[TARGETS[name](data)] += 1

    run()
    assert set(came) >= COMES[name], came


def test_the_runner_knows_every_target() -> None:
    """It names them without the suite, which is to be imported under its eyes."""
    assert tuple(TARGETS) == NAMES


def test_no_edits_change_nothing() -> None:
    """And the same edits do the same."""
    seed = tensors.packed(dict(all_cases()["expert-one-row"].inputs))
    chance = random.Random(1)  # noqa: S311 - reproducible
    assert mutated(seed, b"") == seed
    edits = [chance.randbytes(40) for _ in range(300)]
    assert [mutated(seed, one) for one in edits] == [mutated(seed, Told(one)) for one in edits]
    assert len({mutated(seed, one) for one in edits}) > 150


JUDGED = fuzz_targets.judged


def passed(case: Any, runner: Any) -> Any:
    """A judge that lets everything pass."""
    return replace(JUDGED(case, runner), status="rejected_ok" if case.kind == "reject" else "pass")


BLIND: dict[str, tuple[str, Any, str, Any]] = {  # a target, and what the suite could have done wrong there
    "any size is the same": ("corpora", golden, "same", lambda content, held: held.stat().st_size == len(content)),
    "all questions are the same": ("exported", golden, "same", lambda *_: True),
    "JSON is as it is": ("folders", case_folder, "object_in", json.loads),
    "pipes are read": ("folders", tensors, "bytes_of", lambda path, _=0: path.read_bytes()),
    "all is right": ("answers", fuzz_targets, "judged", passed),
}


@pytest.mark.parametrize("way", BLIND)
def test_a_fault_would_be_found(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzer is not blind: with each of these faults in the suite, it finds it."""
    name, place, attribute, fault = BLIND[way]
    TARGETS[name](b"")
    chance = random.Random(2)  # noqa: S311 - reproducible
    monkeypatch.setattr(place, attribute, fault)
    with pytest.raises((AssertionError, AttributeError, OSError, RecursionError, Hang)):  # noqa: PT012
        for _ in range(5000):
            with within(1):
                TARGETS[name](chance.randbytes(40))


def header(**changes: Any) -> Callable[[bytes], bytes]:
    """Other words about the first tensor of a file, its header's length mended."""

    def change(data: bytes) -> bytes:
        size = int.from_bytes(data[:8], "little")
        told = json.loads(data[8 : 8 + size])
        told[min(told)].update(changes)
        return framed(json.dumps(told).encode(), data[8 + size :])

    return change


def framed(head: bytes, body: bytes = b"") -> bytes:
    """A file of this header and these bytes."""
    return len(head).to_bytes(8, "little") + head + body


def length(number: int) -> Callable[[bytes], bytes]:
    """Another length of the header."""
    return lambda data: number.to_bytes(8, "little") + data[8:]


def last(*words: int) -> Callable[[bytes], bytes]:
    """Other bytes at the end: the last number's."""
    return lambda data: data[: -len(words)] + bytes(words)


ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "nothing": lambda _: b"",
    "a truncated header": lambda data: data[:40],
    "a truncated body": lambda data: data[:-4],
    "a byte too many": lambda data: data + b"\0",
    "a huge header length": length(2**63),
    "the largest header length": length(2**64 - 1),
    "a header longer than the file": length(10**8),
    "a header of nothing": length(0),
    "a header of no object": lambda _: framed(b"[]"),
    "a deep header": lambda _: framed(b'{"y":' * 5000),
    "overlapping offsets": header(data_offsets=[4, 132]),
    "offsets backwards": header(data_offsets=[128, 0]),
    "negative offsets": header(data_offsets=[-128, 0]),
    "offsets beyond the file": header(data_offsets=[0, 2**62]),
    "a negative shape": header(shape=[-1, 32]),
    "a shape that wraps": header(shape=[2**32, 2**32, 2**32]),
    "a shape of many numbers": header(shape=[2**20, 2**20]),
    "a shape without numbers": header(shape=[0, 2**60], data_offsets=[0, 0]),
    "a shape of a hundred axes": header(shape=[1] * 99 + [32]),
    "a shape of no number": header(shape=["32"]),
    "another shape": header(shape=[32, 1]),
    "narrower numbers": header(dtype="BF16", shape=[1, 64]),
    "wider numbers": header(dtype="F64", shape=[1, 16]),
    "whole numbers": header(dtype="I32"),
    "complex numbers": header(dtype="C64", shape=[1, 16]),
    "numbers of four bits": header(dtype="F4", shape=[1, 256]),
    "a dtype in NumPy's words": header(dtype="<f4"),
    "a dtype of objects": header(dtype="O"),
    "other names": lambda data: data.replace(b'"h"', b'"k"').replace(b'"y"', b'"z"'),
    "a path for a name": lambda _: framed(b'{"../../y":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "NaN": last(0, 0, 0xC0, 0x7F),
    "NaN with a payload": last(0x34, 0x12, 0xC0, 0xFF),
    "NaN that signals": last(1, 0, 0x80, 0x7F),
    "infinity": last(0, 0, 0x80, 0x7F),
    "a zip": lambda _: b"PK\x03\x04" + b"\0" * 60,
    "a pickle": lambda _: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
}
PLACES: dict[str, Callable[[Path], Any]] = {
    "a link": lambda path: (path.rename(path.with_name("kept")), path.symlink_to("kept")),
    "a link to no end": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "two gigabytes of zeros": lambda path: os.truncate(path, 2**31),
}
CASE = "expert-one-row"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One exported question, answered rightly."""
    folder = tmp_path_factory.mktemp("kept") / "exported"
    assert moespec("export", str(folder), "--case", CASE).returncode == 0
    program.main(str(folder))
    out = folder / "expert" / CASE / "out.safetensors"
    tensors.write(out, {name: tensor for name, tensor in tensors.read(out).items() if name in ("h", "y")})
    return folder


@pytest.fixture
def answered(kept: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    return Path(shutil.copytree(kept, tmp_path / "exported"))


def judged(folder: Path) -> int:
    """The command's exit code, in good time."""
    with within(30):
        return moespec("judge", str(folder)).returncode


def test_a_right_answer_passes(answered: Path) -> None:
    """So that what follows says something; what lies beside it is nobody's."""
    (answered / "expert" / CASE / "notes.txt").write_text("mine")
    assert judged(answered) == 0
    assert set(numbers_in((answered / "expert" / CASE / "out.safetensors").read_bytes())) == {"h", "y"}


@pytest.mark.parametrize("way", ANSWERS)
def test_a_malformed_answer_fails(way: str, answered: Path) -> None:
    """Exit 1."""
    path = answered / "expert" / CASE / "out.safetensors"
    path.write_bytes(ANSWERS[way](path.read_bytes()))
    assert judged(answered) == 1


@pytest.mark.parametrize("name", ["out.safetensors", "reply.json"])
@pytest.mark.parametrize("way", PLACES)
def test_an_answer_that_is_no_file_fails(way: str, name: str, answered: Path) -> None:
    """Exit 1; no link is followed, and no pipe waited for."""
    path = answered / "expert" / CASE / name
    if name == "reply.json":
        path.write_text('{"status": "done"}')
    PLACES[way](path)
    assert judged(answered) == 1


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b'{"status": "done"}', 0),
        (b'{"status": "failed", "reason": ""}', 3),
        (b'{"status": "refused"}', 3),
        (b'{"status": "not_supported", "reason": {"a": [1]}}', 5),
        (b'{"status": ["done"]}', 1),
        (b'{"status": "pass"}', 1),
        (b'{"status": "done", "reason": "\\ud800"}', 1),
        (b'{"status": "done", "n": ' + b"9" * 5000 + b"}", 1),
        (b"{" * 5000, 1),
        (b"[" * 30000 + b"]" * 30000, 1),
        (b'"done"', 1),
        (b"\xff\xfe", 1),
        (b"", 1),
    ],
    ids=lambda reply: str(reply)[:40],
)
def test_what_a_reply_means(reply: bytes, code: int, answered: Path) -> None:
    """Its status, if it has one; else it is malformed."""
    (answered / "expert" / CASE / "reply.json").write_bytes(reply)
    assert judged(answered) == code


def test_no_answer_is_no_pass(answered: Path) -> None:
    """Exit 3: it could not be judged."""
    (answered / "expert" / CASE / "out.safetensors").unlink()
    assert judged(answered) == 3


@pytest.mark.parametrize("name", ["reply.json", "good/reply.json"])
@pytest.mark.parametrize("status", ["failed", "not_supported"])
def test_no_words_are_words_too(status: str, name: str) -> None:
    """Of malformed input, whose refusal is quoted, and of the good one that it spoils."""
    case = all_cases()["reject-load-negative"]
    runner, tree = fuzz_targets.asked(case)
    (tree.root / name).write_text(json.dumps({"status": status, "reason": ""}))
    result = JUDGED(case, runner)
    (tree.root / name).write_bytes(tree.files[name])
    wrong = "fail" if name == "reply.json" else "error"
    assert result.status == (wrong if status == "failed" else status)


@pytest.mark.parametrize("name", ["MANIFEST.json", f"expert/{CASE}/prompt.json", f"expert/{CASE}/in.safetensors"])
@pytest.mark.parametrize("way", [*PLACES, "a flipped bit", "missing", "nothing", "truncated", "a byte too many"])
def test_a_changed_question_is_damage(way: str, name: str, answered: Path) -> None:
    """Exit 4, whatever was done to which file."""
    path = answered / name
    if way in PLACES:
        PLACES[way](path)
    elif way == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        flipped, more = data[:9] + bytes([data[9] ^ 1]) + data[10:], data + b"\x01"
        changes = {"a flipped bit": flipped, "nothing": b"", "truncated": data[:-9], "a byte too many": more}
        path.write_bytes(changes[way])
    assert judged(answered) == 4


@pytest.mark.parametrize(
    "words",
    [
        {"cases": ["../../x"]},
        {"cases": ["/etc/passwd"]},
        {"cases": [CASE, CASE]},
        {"cases": [CASE, "gate-one-token"]},
        {"cases": []},
        {"cases": {CASE: 1}},
        {"cases": [[CASE]]},
        {"cases": CASE},
        {"profiles": ["deepseek"]},
        {"arithmetic": [None]},
        {"format": "1.0"},
        {"format": [2.0]},
        {"version": "\ud800"},
    ],
    ids=str,
)
def test_a_list_of_other_questions_is_damage(words: dict[str, Any], answered: Path) -> None:
    """Exit 4: cases are found by the suite's own ids, never by a path."""
    path = answered / "MANIFEST.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))
    assert judged(answered) == 4


CORPUS = {
    **PLACES,
    "a flipped bit": lambda path: path.write_bytes(last(path.read_bytes()[-1] ^ 1)(path.read_bytes())),
    "a missing file": lambda path: path.unlink(),
    "a file too many": lambda path: path.with_name("notes.txt").write_text("mine"),
    "a link too many": lambda path: path.with_name("more").symlink_to(path.parent, target_is_directory=True),
    "a truncated header": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "a wrong hash": lambda path: wrong_hash(path.parents[2] / "MANIFEST.json"),
}


def wrong_hash(path: Path) -> None:
    """One digit of the hash of them all."""
    told = json.loads(path.read_text())
    golden.write_json(path, {**told, "root": told["root"][:-1] + ("0" if told["root"][-1] == "1" else "1")})


@pytest.mark.parametrize("way", CORPUS)
def test_a_damaged_corpus_is_damage(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 4. What a fresh build makes is another test's; here it is a copy."""
    root = home("golden")
    monkeypatch.setattr(golden, "build", lambda made, _: shutil.copytree(root / "cast", made / "cast") and fresh(made))
    monkeypatch.setattr(golden, "members", list)
    monkeypatch.setattr(golden, "thin", list)

    def fresh(made: Path) -> None:
        shutil.copy(root / "MANIFEST.json", made)

    held = tmp_path / "golden"
    golden.build(held, None)
    assert moespec("golden", "--check", "--dir", str(held)).returncode == 0
    CORPUS[way](next(held.glob("cast/*/out.safetensors")))
    with within(30):
        assert moespec("golden", "--check", "--dir", str(held)).returncode == 4


def bomb(**words: Any) -> dict[str, Any]:
    """A generated tensor that is none."""
    return {"generated": {"x": {"shape": [1, 64], "seed": 1, "shift": 1, **words}}}


@pytest.mark.parametrize(
    "words",
    [
        *({"id": name} for name in ("../../x", "/etc/passwd", "a/b", "", "x" * 300, "\ud800", "a\n", 7, ["gate"])),
        *(
            bomb(shape=shape)
            for shape in ([2**40], [2**14, 2**14], [0, 2**60], [-1], [1.5], [[1]], [True], [1] * 70, "")
        ),
        *(bomb(shape=[10**4000] * 8), bomb(shape=[9] * 10**5), bomb(seed=-1), bomb(seed=2**64), bomb(shift=2**40)),
        {"generated": {f"x{n}": {"shape": [2**20], "seed": 1, "shift": 1} for n in range(17)}},
        {"generated": [1]},
        {"note": "\ud800"},
        {"config": {"a\ud800": 2**40}},
    ],
    ids=lambda words: str(words)[:50].encode("ascii", "replace").decode(),
)
def test_a_hostile_folder_is_refused(words: dict[str, Any], tmp_path: Path) -> None:
    """At once, in words that any terminal can show."""
    case_folder.write(tmp_path, all_cases()["gate-one-token"])
    told = json.loads((tmp_path / "prompt.json").read_text())
    (tmp_path / "prompt.json").write_text(json.dumps({**told, **words}))
    with within(5), pytest.raises(Usage) as error:
        case_from(tmp_path)
    str(error.value).encode()


@pytest.mark.parametrize("name", ["prompt.json", "in.safetensors", "expected.json"])
@pytest.mark.parametrize("way", PLACES)
def test_a_folder_of_no_files_is_refused(way: str, name: str, tmp_path: Path) -> None:
    """No link is followed, no pipe waited for; and a right answer's kind is not overlooked."""
    case_folder.write(tmp_path, all_cases()["gate-one-token"])
    PLACES[way](tmp_path / name)
    with within(5), pytest.raises(Usage):
        case_from(tmp_path)


@pytest.mark.parametrize(
    "config", [{"n_group": 2**16, "topk_group": 2**15, "n_routed_experts": 2**16}, {"block": [2**70, 1]}]
)
def test_sizes_in_a_config_cost_nothing(config: dict[str, Any], tmp_path: Path) -> None:
    """However large."""
    case_folder.write(tmp_path, all_cases()["gate-one-token"])
    told = json.loads((tmp_path / "prompt.json").read_text())
    (tmp_path / "prompt.json").write_text(json.dumps({**told, "config": {**told["config"], **config}}))
    with within(5), pytest.raises(Usage):
        case_from(tmp_path)


@pytest.mark.parametrize(
    "text", [b"", b"1", b"[]", b'{"a": "\\udfff"}', b'{"\\ud800": 1}', b'{"a":' * 9999, b"\xff", b"{}{}"]
)
def test_what_is_no_object_is_none(text: bytes) -> None:
    """One kind of error for all of them."""
    with pytest.raises(ValueError, match=r"."):
        object_in(text)


@pytest.mark.parametrize(
    "words",
    [
        *({name: value} for name in ("case", "status", "message") for value in ([], {}, None, 1)),
        *({"error_over_bound": value} for value in ("far", [], 10**400)),
        *({"stage": ["y"]}, {"clauses": 1}, {"message": "\ud800"}),
    ],
    ids=str,
)
def test_a_run_of_other_words_is_none(words: dict[str, Any], tmp_path: Path) -> None:
    """Exit 2."""
    text = fuzz_targets.log()[0].decode().splitlines()
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join([text[0], json.dumps({**json.loads(text[1]), **words}), *text[2:]]))
    assert moespec("diff", str(path), str(path)).returncode == 2
