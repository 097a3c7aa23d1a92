"""How a question is written for programs of any language, and how their answer is read (SPEC section 24)."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from moespec_conformance import golden, tensors
from moespec_conformance.protocol import BFLOAT16, Broken, NotSupported, Tensors

STATUSES = ("done", "not_supported", "refused", "failed")


def question_bytes(name: str, op: str, config: dict[str, Any], inputs: Tensors) -> dict[str, bytes]:
    """prompt.json and in.safetensors, without a word about what is tested."""
    coarse = any(tensor.dtype == BFLOAT16 for tensor in inputs.values())
    told = {"format": golden.FORMAT, "id": name, "op": op, "config": writable(config)}
    prompt = golden.as_json({**told, "arithmetic": "bfloat16" if coarse else "float32"})
    try:
        return {"prompt.json": prompt, "in.safetensors": tensors.packed(inputs)}
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise NotSupported(f"safetensors cannot hold an input: {error}") from error


def writable(config: dict[str, Any]) -> dict[str, Any]:
    """A config that JSON can hold: numbers that are not finite, all of which must be refused, become words."""
    odd = {key: str(value) for key, value in config.items() if isinstance(value, float) and not math.isfinite(value)}
    return {**config, **odd}


def outputs_in(folder: Path, said: dict[str, Any]) -> Tensors:
    """The outputs in a folder of which a program says that it is done; an exception for all else that it may say."""
    status, reason = said.get("status"), str(said.get("reason", "no reason given"))
    if status == "not_supported":
        raise NotSupported(reason)
    if status == "refused":
        raise ValueError(reason)
    if status == "failed":
        raise Broken("raised", reason)
    if status != "done":
        raise Broken("unreadable", f"status must be one of {', '.join(STATUSES)}, not {json.dumps(status)[:80]}")
    try:
        return tensors.read(folder / "out.safetensors")
    except ValueError as error:
        raise Broken("unreadable", str(error)) from error
