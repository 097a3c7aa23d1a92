"""A case as a folder of files, in the form of the golden corpus (golden/README.md): written, and read back.

`prompt.json` may say more than the corpus does: `manner`, how the op is called if not plainly, and `property`, which
property a counterexample breaks. What is read may come from anywhere: what is wrong with it is the caller's mistake.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from moespec.checks import check
from moespec.config import MoEConfig
from moespec.signatures import OPS
from moespec_conformance import golden, tensors
from moespec_conformance.address import Usage
from moespec_conformance.expecting import expected
from moespec_conformance.foreign import LONGEST, object_in
from moespec_conformance.generator import Generated, generate
from moespec_conformance.protocol import ARITHMETIC, BFLOAT16, Case, Tensors
from moespec_conformance.spec import clauses

KINDS = ("bounded", "exact", "spread", "selection")
MANNERS = ("plain", "strided", "again")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
TOO_LARGE = 2**16  # for a size in a config
MOST = 2**24  # numbers that the generator makes for a case
MOST_AXES = 8
LARGEST_SHIFT = 100
TOO_MANY = 10**5  # ways to choose groups, all of which the judge looks at
ILLEGAL = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ArithmeticError,
)  # what a config or tensor of any kind raises


class Prompt(NamedTuple):
    """What prompt.json says."""

    id: str
    op: str
    config: dict[str, Any]
    arithmetic: str
    clauses: tuple[str, ...]
    note: str
    manner: str
    property: str


def folder_of(name: str) -> Path | None:
    """The folder that a name means, if it is none of a case: a path, or where a prompt.json lies."""
    return Path(name) if "/" in name or (Path(name) / "prompt.json").is_file() else None


def write(folder: Path, case: Case, **more: str) -> None:
    """Write a case, with its answer and more words for prompt.json, over what lies there."""
    folder.mkdir(parents=True, exist_ok=True)
    told, out = expected(case, portable=False)
    manner = {} if case.manner == "plain" else {"manner": case.manner}
    golden.write_json(folder / "prompt.json", {**golden.prompt(case), **manner, **more})
    golden.write_json(folder / "expected.json", {"format": golden.FORMAT, "id": case.id, **told})
    tensors.write(folder / "in.safetensors", case.inputs)
    tensors.write(folder / "out.safetensors", out)


def case_from(folder: Path) -> Case:
    """The case in a folder, all of it checked."""
    told, inputs = prompt_of(folder), inputs_of(folder)
    kind, right = "bounded", folder / "expected.json"
    if right.is_symlink() or right.exists():
        kind = said(folder, content_of(right), "kind", KINDS)
    how: dict[str, Any] = {"kind": kind, "arithmetic": told.arithmetic, "manner": told.manner, "note": told.note}
    case = Case(told.id, told.op, told.config, lambda: dict(inputs), told.clauses, profiles=(), **how)
    try:
        legal(case)
    except ILLEGAL as error:
        raise Usage(f"{folder}: {error}") from error
    return case


def prompt_of(folder: Path) -> Prompt:
    """What prompt.json says, each word of it one that we know."""
    content = content_of(folder / "prompt.json")
    said(folder, content, "format", (golden.FORMAT,))
    op, arithmetic = said(folder, content, "op", tuple(OPS)), said(folder, content, "arithmetic", tuple(ARITHMETIC))
    manner = said(folder, {"manner": "plain", **content}, "manner", MANNERS)
    name, config, about = content.get("id"), content.get("config"), content.get("clauses")
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise Usage(f"{folder}: id must be letters, digits, dots and dashes")
    if not isinstance(config, dict) or not isinstance(about, list):
        raise Usage(f"{folder}: config must be an object, and clauses a list")
    known = tuple(one for one in map(str, cast("list[object]", about)) if one in clauses())
    note, broken = (str(content.get(key, "")) for key in ("note", "property"))
    return Prompt(name, op, config, arithmetic, known, note, manner, broken)


def content_of(path: Path) -> dict[str, Any]:
    """An object in a file of JSON."""
    try:
        return object_in(tensors.bytes_of(path, LONGEST))
    except (OSError, ValueError) as error:
        raise Usage(f"{path} cannot be read: {error}") from error


def said(folder: Path, content: dict[str, Any], key: str, words: tuple[str, ...]) -> str:
    """A word out of those that are legal."""
    word = content.get(key)
    if not isinstance(word, str) or word not in words:
        raise Usage(f"{folder}: {key} must be one of {', '.join(words)}")
    return word


def inputs_of(folder: Path) -> Tensors:
    """The tensors in in.safetensors, and those that the generator makes."""
    generated = content_of(folder / "prompt.json").get("generated", {})
    try:
        made = {name: told(one) for name, one in generated.items()}
        if sum(math.prod(max(n, 1) for n in one.shape) for one in made.values()) > MOST:
            raise ValueError(f"more than {MOST} generated numbers")
        return tensors.read(folder / "in.safetensors") | {name: generate(one) for name, one in made.items()}
    except ILLEGAL as error:
        raise Usage(f"{folder}: {error}") from error


def told(one: dict[str, Any]) -> Generated:
    """A generated tensor as a prompt tells of it."""
    shape, seed, shift = whole_numbers(one["shape"]), *whole_numbers([one["seed"], one["shift"]])
    if len(shape) > MOST_AXES:
        raise ValueError(f"a generated tensor has more than {MOST_AXES} axes")
    if seed >= 2**64 or shift > LARGEST_SHIFT:
        raise ValueError("a generated tensor's seed or shift is too large")
    return Generated(shape, seed, shift)


def whole_numbers(given: object) -> tuple[int, ...]:
    """A list of whole numbers, 0 or more."""
    numbers = cast("list[object]", given) if isinstance(given, list) else [None]
    made = tuple(n for n in numbers if type(n) is int and n >= 0)
    if len(made) < len(numbers):
        raise ValueError("a generated tensor has a shape, a seed and a shift, of whole numbers")
    return made


def legal(case: Case) -> None:
    """Raise a ValueError, its message beginning with a clause, unless the op takes these tensors by this config."""
    sizes = [name for name, size in case.config.items() if largest(size) > TOO_LARGE]
    if sizes:
        raise ValueError(f"{', '.join(sizes)} beyond {TOO_LARGE}")
    cfg = MoEConfig.from_dict(case.config)
    if math.comb(cfg.n_group, cfg.topk_group) > TOO_MANY:
        raise ValueError(f"more than {TOO_MANY} ways to choose topk_group of n_group")
    wide = {n: t.astype(np.float32) if t.dtype == BFLOAT16 else t for n, t in case.inputs.items()}
    check(case.op, cfg, wide)


def largest(size: object) -> int:
    """The largest whole number of a config's field, which may be a block's two."""
    numbers = cast("list[object]", size) if isinstance(size, list | tuple) else [size]
    return max((n for n in numbers if isinstance(n, int)), default=0)
