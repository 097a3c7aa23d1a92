"""Counterexamples as folders: prompt.json and in.safetensors, as every case has, and which property they break."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from moespec_conformance import tensors
from moespec_conformance.case_folder import case_from, content_of, prompt_of
from moespec_conformance.golden import prompt, write_json
from moespec_conformance.properties.engine.property import Property, Trial


def keep(root: Path, found: Property, trial: Trial, message: str) -> Path:
    """Write a trial into a folder of its own, named by the property and by what it holds."""
    case, how = trial
    told = prompt(case) | {"clauses": list(found.clauses), "note": message, "property": found.name, "how": how}
    content = json.dumps({**told, "note": ""}, sort_keys=True).encode()
    for name in sorted(case.inputs):
        content += name.encode() + case.inputs[name].tobytes()
    folder = root / f"{found.name}-{hashlib.sha256(content).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "prompt.json", told | {"id": folder.name})
    tensors.write(folder / "in.safetensors", case.inputs)
    return folder


def kept(root: Path | None, name: str) -> Iterator[Path]:
    """The folders that keep counterexamples of a property."""
    for path in sorted(root.glob("*/prompt.json")) if root else ():
        if content_of(path).get("property") == name:
            yield path.parent


def kept_trial(folder: Path) -> tuple[str, Trial]:
    """The property that a folder breaks, and the trial that does it."""
    how = content_of(folder / "prompt.json").get("how")
    return prompt_of(folder).property, Trial(case_from(folder), how if isinstance(how, dict) else {})
