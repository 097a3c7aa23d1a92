"""Two corpora beside each other: which cases came, went or changed, and whether the version says so."""

import re
from pathlib import Path
from typing import NamedTuple

from moespec_conformance import tensors
from moespec_conformance.checking import Damaged
from moespec_conformance.foreign import LONGEST, object_in

VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
QUESTION = ("prompt.json", "in.safetensors")
STEPS = ("MAJOR", "MINOR", "PATCH")


class Corpus(NamedTuple):
    """What a manifest says: the format, the version (of 1.0, which had none, 1.0.0), and files by case."""

    format: str
    version: str
    cases: dict[str, dict[str, str]]


class Change(NamedTuple):
    """Ids by what became of them, and the least step of the version that says so; None if nothing changed."""

    came: list[str]
    went: list[str]
    asked_otherwise: list[str]
    answered_otherwise: list[str]
    needs: str | None


def corpus_in(root: Path) -> Corpus:
    """A corpus by its manifest."""
    path = root / "MANIFEST.json"
    try:
        told = object_in(tensors.bytes_of(path, LONGEST))
        cases: dict[str, dict[str, str]] = {}
        for name, digest in told["files"].items():
            op, case, file = (*str(name).split("/", 2), "", "")[:3]
            if file:  # and not flags.json
                cases.setdefault(f"{op}/{case}", {})[file] = str(digest)
        made = Corpus(str(told["format"]), str(told.get("version", "1.0.0")), cases)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if not VERSION.fullmatch(made.version):
        raise Damaged(f"{path}: version must be three numbers")
    return made


def change(old: Corpus, new: Corpus) -> Change:
    """What happened from the one to the other."""
    both = sorted(old.cases.keys() & new.cases.keys())
    came, went = sorted(new.cases.keys() - old.cases.keys()), sorted(old.cases.keys() - new.cases.keys())
    other = [name for name in both if old.cases[name] != new.cases[name]]
    asked = [name for name in other if any(old.cases[name].get(q) != new.cases[name].get(q) for q in QUESTION)]
    answered = [name for name in other if name not in asked]
    steps = {"MAJOR": old.format != new.format or asked, "MINOR": came or went, "PATCH": answered}
    return Change(came, went, asked, answered, next((step for step in STEPS if steps[step]), None))


def step(old: Corpus, new: Corpus) -> str | None:
    """The step from one version to the other; None if they are the same, or the newer one is older."""
    before, after = ([int(n) for n in one.version.split(".")] for one in (old, new))
    if after <= before:
        return None
    return next(name for name, a, b in zip(STEPS, before, after, strict=True) if a != b)


def said(old: Corpus, new: Corpus) -> tuple[list[str], bool]:
    """The comparison in lines, and whether the version's step is large enough."""
    found, made = change(old, new), step(old, new)
    words = ("came", "went", "asked otherwise", "answered otherwise")
    lines = [f"{word}: {name}" for word, names in zip(words, found[:4], strict=True) for name in names]
    enough = found.needs is None or (made is not None and STEPS.index(made) <= STEPS.index(found.needs))
    counts = ", ".join(f"{len(names)} {word}" for word, names in zip(words, found[:4], strict=True))
    lines.append(f"{old.version} (format {old.format}) to {new.version} (format {new.format}): {counts}")
    lines.append(f"needs a step of {found.needs or 'nothing'}; the version makes one of {made or 'nothing'}")
    return lines, enough
