"""Where files of others come in: a target for each, which any bytes drive (see fuzzing.py).

Whether an answer that passes is right is not asked of the suite's reader: `numbers_in` is another one.
"""

import json
import stat
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fuzzing import Told, Tree, mutated, private

from moespec.signatures import OPS, expected, optional
from moespec_conformance import corpora, expectations, golden, tensors
from moespec_conformance.adapters.reference import Adapter
from moespec_conformance.address import Usage
from moespec_conformance.answering import outputs_in
from moespec_conformance.answers import Answers
from moespec_conformance.case_folder import case_from
from moespec_conformance.cases import all_cases
from moespec_conformance.checking import Damaged
from moespec_conformance.differing import differences, said, told
from moespec_conformance.expecting import expected as right_answer
from moespec_conformance.exporting import LIST, manifest_of, question_bytes, questions, unchanged
from moespec_conformance.foreign import object_in
from moespec_conformance.judging import judged
from moespec_conformance.members import VERSION
from moespec_conformance.program import Program
from moespec_conformance.protocol import Broken, Case, NotSupported, Result
from moespec_conformance.report import jsonl

ASKED = (
    *("dispatch-one-token", "matmul-fp8-exact-small", "bias-update-centred-exact"),  # exact
    *("expert-one-row", "rms-norm-one-wide", "matmul-fp8-small", "capacity-position-one-slot"),  # bounded
    *("gate-one-token", "gate-expert-choice-one-expert"),  # choices
    *("requantize-one-row", "quantize-deepgemm-ragged-rows-of-one", "cast-bfloat16-little"),  # codes
    *("layout-contiguous-one-expert", "layout-masked-nothing", "reject-load-negative"),
)
IN_CORPUS = ("rms-norm-one-wide",)
IN_FOLDERS = ("gate-one-token", "matmul-fp8-small", "moe-backward-grok-1-generated", "capacity-position-one-slot")
EXPORTED = ("rms-norm-one-wide", "reject-load-negative")
RIGHT = {"reject": "rejected_ok"}
LARGEST = 2**27  # bytes of inputs that a few words may ask for
READ = {"F64": "<f8", "F32": "<f4", **{f"{kind.upper()}{8 * n}": f"<{kind}{n}" for kind in "iu" for n in (1, 2, 4, 8)}}


def answers(data: bytes) -> str:
    """An answer in files, judged: never an exception, never a pass that is none."""
    choices = Told(data)
    case = all_cases()[choices.choice(ASKED)]
    runner, tree = asked(case)
    with tree.spoilt(choices) as harm:
        result = judged(case, runner)
        assert result.status in {"pass", "fail", "error", "not_supported", "quality_warning", "rejected_ok"}
        json.loads(jsonl.case_of(result)), result.message.encode()
        right = RIGHT.get(case.kind, "pass")
        if result.status in {"pass", "quality_warning", "rejected_ok"}:
            assert result.status in {right, "quality_warning"}
            truly_answered(case, tree.root)
        assert harm.changed or result.status == right, result
    return result.status


@cache
def asked(case: Case) -> tuple[Answers, Tree]:
    """The right answer to a case in files, and who reads it."""
    files: dict[str, bytes] = {}
    for place, question in questions(case):
        folder = place.relative_to(Path(case.op) / case.id)
        told = {"case": case.id, "status": "done", "reason": "because"}
        if case.kind == "reject" and folder == Path():
            told["status"] = "refused"
        else:
            made = getattr(Adapter(), case.op)(question.config, **{n: t.copy() for n, t in question.inputs.items()})
            outputs = expected(OPS[case.op].outputs, case.cfg if case.kind != "reject" else case.good.cfg)
            kept = {name: made[name] for name in outputs if name in made}
            files[str(folder / "out.safetensors")] = tensors.packed(kept)
        files[str(folder / "reply.json")] = json.dumps(told).encode()
    runner, tree = Answers("fuzzed", ("float32",), ("deepseek-v3",)), Tree(files)
    for place, question in questions(case):
        runner.add(question, tree.root / place.relative_to(Path(case.op) / case.id))
    return runner, tree


def truly_answered(case: Case, folder: Path) -> None:
    """The files themselves hold a right answer: what reply.json says, and the numbers."""
    reject = case.kind == "reject"
    for place, status in ((folder, "refused"), (folder / "good", "done")) if reject else ((folder, "done"),):
        reply = place / "reply.json"
        assert not reply.is_symlink()
        assert not reply.exists() or json.loads(reply.read_bytes())["status"] == status
        if status == "done":
            assert stat.S_ISREG((place / "out.safetensors").lstat().st_mode)
            given = numbers_in((place / "out.safetensors").read_bytes())
            if not reject:
                right_numbers(case, given)


def numbers_in(data: bytes) -> dict[str, np.ndarray]:
    """Tensors of plain numbers in a file, as float64."""
    size = int.from_bytes(data[:8], "little")
    found: dict[str, np.ndarray] = {}
    for name, about in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__" and about["dtype"] in {*READ, "BF16"}:
            begin, end = about["data_offsets"]
            raw = data[8 + size + begin : 8 + size + end]
            wide = np.frombuffer(raw, READ.get(about["dtype"], "<u2"))
            if about["dtype"] == "BF16":
                wide = (wide.astype("<u4") << 16).view("<f4")
            found[name] = wide.astype(np.float64).reshape(about["shape"])
    return found


@cache
def right_numbers_of(case: Case) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """How each output is compared, and with what."""
    told, held = right_answer(case, portable=False)
    outputs = expected(OPS[case.op].outputs, case.cfg)
    kinds = {
        name: kind for name, kind in told["outputs"].items() if name in outputs and name not in told.get("every", {})
    }
    return kinds, held


def right_numbers(case: Case, given: dict[str, np.ndarray]) -> None:
    """Equal where the case is exact, else within the bound. Rows that are nobody's are left out."""
    kinds, held = right_numbers_of(case)
    outputs = expected(OPS[case.op].outputs, case.cfg)
    for name, kind in kinds.items():
        if name not in given:
            assert optional(outputs[name]) or kind not in {"exact", "bounded"}, name
        elif kind in {"exact", "bounded"} and case.op != "layout":
            got, want = given[name], held[name].astype(np.float64)
            if case.op == "dispatch" and name != "expert_count":
                got = got[given["row_token"] != -1]
            bound = held[f"{name}.bound"].astype(np.float64) if kind == "bounded" else 0.0
            bound += np.spacing(held[name]) / 2 if name == "scale" else 0.0  # the number is rounded, its bound is not
            assert got.shape == want.shape, name
            assert bool(np.all((np.abs(got - want) <= bound) | (got == want))), name


def corpus_held(data: bytes) -> str:
    """A corpus of which one file is spoilt: found, unless nothing is other than before."""
    choices = Told(data)
    fresh, held = corpus()
    with held.spoilt(choices) as harm:
        found = golden.compared(fresh.root, held.root)
        named = harm.changed and harm.name != "README.md"
        assert bool(found) == named, (harm, found)
        assert all(harm.name in line for line in found), (harm, found)
    return harm.way if named else "same"


def manifests(data: bytes) -> str:
    """Two corpora by their manifests: compared, or not read."""
    fresh, name = corpus()[0], "MANIFEST.json"
    content = mutated(fresh.files[name], data)
    (private() / name).write_bytes(content)
    try:
        pair = corpora.corpus_in(fresh.root), corpora.corpus_in(private())
    except Damaged as error:
        str(error).encode()
        if content == fresh.files[name]:
            raise
        return "damaged"
    for one in (pair, pair[::-1]):
        words, enough = corpora.said(*one)
        "".join(words).encode()
        assert enough or content != fresh.files[name]
    return "compared"


@cache
def corpus() -> tuple[Tree, Tree]:
    """A small corpus, twice."""
    root = private() / "corpus"
    for name in IN_CORPUS:
        golden.write_case(root, all_cases()[name])
    golden.write_json(root / "flags.json", {"format": golden.FORMAT, "flags": {}})
    golden.write_json(root / "MANIFEST.json", golden.manifest(root))
    return Tree(files_in(root)), Tree(files_in(root))


def files_in(root: Path) -> dict[str, bytes]:
    """Every file by its name."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def folders(data: bytes) -> str:
    """A case in a folder: a case, or the caller's mistake; and never more numbers than it may ask for."""
    choices = Told(data)
    tree = folder_of(choices.choice(IN_FOLDERS))
    with tree.spoilt(choices) as harm:
        try:
            case = case_from(tree.root)
        except Usage as error:
            str(error).encode()
            if not harm.changed:
                raise
            return "refused"
        assert sum(tensor.nbytes for tensor in case.inputs.values()) <= LARGEST
        assert harm.way in {"edit", "add"} or harm[:2] == ("remove", "expected.json"), harm
        f"{case.id} {case.note} {case.config}".encode()
    return "accepted"


@cache
def folder_of(name: str) -> Tree:
    """A case of the corpus, as a folder."""
    root = private() / "folders"
    golden.write_case(root, all_cases()[name])
    return Tree(
        {n: content for n, content in files_in(root / all_cases()[name].op / name).items() if n != "out.safetensors"}
    )


def exported(data: bytes) -> str:
    """Exported questions: whole, or damaged."""
    tree = export()
    with tree.spoilt(Told(data)) as harm:
        try:
            told = manifest_of(tree.root)
            for name in told["cases"]:
                unchanged(tree.root, all_cases()[name], Answers("", (), ()))
        except (Damaged, Usage) as error:
            str(error).encode()
            if not harm.changed:
                raise
            return "damaged"
        assert len(set(told["cases"])) == len(told["cases"]) > 0
        assert set(told["cases"]) <= set(EXPORTED)
        if harm.name != LIST and harm.way != "add":
            assert not harm.changed or harm.name.split("/")[1] not in told["cases"], harm
    return "whole"


@cache
def export() -> Tree:
    """Some questions and their list."""
    about = {"profiles": ["deepseek-v3"], "arithmetic": ["float32"], "cases": list(EXPORTED)}
    files = {LIST: golden.as_json({"format": golden.FORMAT, "version": VERSION, **about})}
    for name in EXPORTED:
        for place, question in questions(all_cases()[name]):
            for file, content in question_bytes(name, *question[:3]).items():
                files[f"{place}/{file}"] = content
    return Tree(files)


LINES = (
    b'{"case": "gate-1", "status": "done"}',
    b'{"case": "gate-1", "status": "refused", "reason": "GATE-11: the bias is not finite"}',
    b'{"name": "mine", "version": "1", "arithmetic": ["float32", "bfloat16"], "profiles": ["deepseek-v3"]}',
)


def lines(data: bytes) -> str:
    """A line that a program wrote."""
    choices = Told(data)
    _, tree = asked(all_cases()["expert-one-row"])
    line = mutated(choices.choice(LINES), choices)
    try:
        said_there = object_in(line)
    except ValueError:
        return "unreadable"
    program: Any = SimpleNamespace(command=["mine"])
    Program.introduce(program, said_there)
    assert all(type(word) is str for word in (program.name, *program.arithmetic, *program.profiles))
    f"{said_there}{program.name}".encode()
    try:
        return "done" if outputs_in(tree.root, said_there) else "nothing"
    except (NotSupported, ValueError, Broken) as error:
        str(error).encode()
        return type(error).__name__


FAILURES = (
    b"# ours\n\nxfail gate-* known since 1.2\nwaive [!e]*-one-row https://example.org/1 agreed\nxfail ?oe*\ta [b\n"
)


def known_failures(data: bytes) -> str:
    """A file of known failures."""
    path = private() / "known.txt"
    path.write_bytes(mutated(FAILURES, data))
    try:
        found = expectations.read(path)
    except Usage:
        return "refused"
    wrong = Result("gate-ordinary", "gate", (), "fail", "bounded")
    assert expectations.apply(wrong, found).status in {"fail", "xfail", "waived"}
    assert len(expectations.stale(found, [wrong])) >= len(found) - 1
    return "read"


def runs(data: bytes) -> str:
    """Results of a run, compared with others."""
    path, good = private() / "results.jsonl", log()
    path.write_bytes(mutated(good[0], data))
    try:
        held = jsonl.read(path)
    except Usage as error:
        str(error).encode()
        return "refused"
    for pair in ((held, good[1]), (good[1], held)):
        found = differences(*pair)
        json.dumps(told(found, *pair))
        for one in (one for kind in found.values() for one in kind):
            f"{one.case}{said(one.before)}{said(one.after)}".encode()
    return "read"


@cache
def log() -> tuple[bytes, jsonl.Log]:
    """Results as they are written, and as they are read."""
    far = Result("moe-ordinary", "moe", ("MOE-1",), "fail", "bounded", 30.5, 30.5, "y", "y is far")
    near = Result("gate-ordinary", "gate", ("GATE-1",), "pass", "bounded", 0.2)
    none = Result("expert-ordinary", "expert", ("EXP-1",), "error", "raised", message="it broke")
    text = jsonl.line_of("header", {"adapter": "mine", "numpy": "2.1"})
    text += "".join(jsonl.line_of("result", asdict(one)) for one in (far, near, none))
    text += jsonl.line_of("footer", {"counts": {"error": 1, "fail": 1, "pass": 1}, "exit_code": 1})
    path = private() / "good.jsonl"
    path.write_text(text, encoding="utf-8")
    return text.encode(), jsonl.read(path)


TARGETS: dict[str, Callable[[bytes], str]] = {
    "answers": answers,
    "corpora": corpus_held,
    "manifests": manifests,
    "folders": folders,
    "exported": exported,
    "lines": lines,
    "known_failures": known_failures,
    "runs": runs,
}
