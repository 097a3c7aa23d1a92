"""Answers that lie in files, as a runner: what implementers wrote beside the questions of `moespec export`."""

import hashlib
import json
from pathlib import Path
from typing import Any

from moespec_conformance import tensors
from moespec_conformance.answering import outputs_in
from moespec_conformance.asking import Question, Reply, raised
from moespec_conformance.foreign import object_in
from moespec_conformance.protocol import Broken, Tensors

LONGEST = 2**16  # bytes of a reply.json


class Answers:
    """Folders with answers, found by the question that lies there."""

    def __init__(self, name: str, arithmetic: tuple[str, ...], profiles: tuple[str, ...]) -> None:
        """Begin without any."""
        self.name, self.version = name, "files"
        self.arithmetic, self.profiles = arithmetic, profiles
        self.folders: dict[str, Path] = {}

    def add(self, question: Question, folder: Path) -> None:
        """Remember where a question was put."""
        self.folders[digest(question)] = folder

    def ask(self, question: Question) -> Reply:
        """What was answered to a question, whatever its manner."""
        folder = self.folders.get(digest(question))
        if folder is None:
            return Reply("not_supported", message="this question was not exported")
        try:
            return Reply("answered", outputs_of(folder))
        except Exception as error:  # noqa: BLE001 - whatever lies there is a result
            return raised(error)

    def close(self) -> None:
        """Nothing is held."""


def digest(question: Question) -> str:
    """One text for equal questions: the op, the config and every tensor's dtype, shape and bytes."""
    made = hashlib.sha256(json.dumps([question.op, question.config], sort_keys=True, default=str).encode())
    for name, tensor in sorted(question.inputs.items()):
        made.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    return made.hexdigest()


def outputs_of(folder: Path) -> Tensors:
    """The outputs in a folder, or what reply.json says instead."""
    reply = folder / "reply.json"
    if reply.is_symlink() or reply.exists():
        return outputs_in(folder, said_in(reply))
    if not (folder / "out.safetensors").is_symlink() and not (folder / "out.safetensors").exists():
        raise Broken("raised", "not answered: neither out.safetensors nor reply.json")
    return outputs_in(folder, {"status": "done"})


def said_in(path: Path) -> dict[str, Any]:
    """What a reply.json says."""
    try:
        return object_in(tensors.bytes_of(path, LONGEST))
    except (OSError, ValueError) as error:
        raise Broken("unreadable", f"reply.json cannot be read: {error}") from error
