"""Adapters that misbehave, each in one way: what a run must survive, and call by its name."""

import os
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from moespec_conformance import NotSupported
from moespec_conformance.adapters.reference import compute


class Honest:
    """The reference, op by op: what the others spoil."""

    name, version, arithmetic = "honest", "1", ("float32",)

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """One op is enough to misbehave in."""
        return compute("expert", config, **t)


class Mixtral(Honest):
    """Made for another model."""

    profiles = ("mixtral-8x7b", "mixtral-8x22b")


class Lost(Honest):
    """Made for a model that nobody knows."""

    profiles = "gold"


class Raises(Honest):
    """Raises an error of its own on inputs of one row."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Fail on one row."""
        if len(t["x"]) == 1:
            raise KeyError("no such kernel")
        return compute("expert", config, **t)


class Remembers(Honest):
    """Answers inputs of a shape as it did the first time."""

    def __init__(self) -> None:
        """Nothing has been asked."""
        self.known: dict[tuple[int, ...], dict[str, Any]] = {}

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Look it up."""
        return self.known.setdefault(t["x"].shape, compute("expert", config, **t))


class Hangs(Honest):
    """Never comes back from inputs of one row."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Hang on one row."""
        while len(t["x"]) == 1:
            time.sleep(0.05)
        return compute("expert", config, **t)


class Crashes(Honest):
    """Takes its process down on inputs of one row."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Die on one row, as a segmentation fault would."""
        if len(t["x"]) == 1:
            os.kill(os.getpid(), 11)
        return compute("expert", config, **t)


class Writes(Honest):
    """Writes into its inputs, around the read-only flag, as a framework that shares memory can."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Zero the first element of x afterwards."""
        out = compute("expert", config, **t)
        if t["x"].size and t["x"].flags.c_contiguous:
            np.frombuffer(memoryview_of(t["x"]), t["x"].dtype)[0] = 7
        return out


def memoryview_of(array: Any) -> Any:
    """The writable memory behind a read-only array."""
    import ctypes  # noqa: PLC0415

    return (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)


class Overwrites(Honest):
    """Works in place on its input, as NumPy code does that was not meant to be called by others."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Scale x in place."""
        t["x"] *= np.float32(1)
        return compute("expert", config, **t)


class Narrow(Honest):
    """Returns the wrong shape."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Lose the last column."""
        return {"y": compute("expert", config, **t)["y"][:, :-1]}


class Half(Honest):
    """Returns float16."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Lose digits."""
        return {"y": compute("expert", config, **t)["y"].astype(np.float16)}


class NaN(Honest):
    """Returns NaN where it has rows."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Lose everything."""
        return {"y": compute("expert", config, **t)["y"] * np.float32("nan")}


class Chatty(Honest):
    """Prints on stdout, and says so of unknown things."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Talk."""
        print('{"record": "result", "status": "pass"}')  # noqa: T201 - the point
        sys.stdout.flush()
        return compute("expert", config, **t)


class Declines(Honest):
    """Supports nothing."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:  # noqa: ARG002
        """Decline."""
        raise NotSupported("no experts here")


class Own(NamedTuple):
    """A class that only this file knows."""

    y: Any


class Objects(Honest):
    """Returns an object of its own class."""

    def expert(self, config: dict[str, Any], **t: Any) -> Any:
        """Wrap the result."""
        return Own(compute("expert", config, **t)["y"])


class Inner(Honest):
    """Returns a dict of objects of its own class."""

    def expert(self, config: dict[str, Any], **t: Any) -> Any:
        """Wrap the result."""
        return {"y": np.array([Own(compute("expert", config, **t)["y"]), None], dtype=object)}


class Refuses(Honest):
    """Refuses everything, good or bad."""

    def expert(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Refuse."""
        raise ValueError(f"no {sorted(config)} with {sorted(t)}")


class Broken:
    """Cannot even answer the simplest question."""

    name, version = "broken", "1"

    def moe(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:  # noqa: ARG002
        """Fail always."""
        raise AssertionError("device is lost")


class Stranded:
    """Cannot be made."""

    def __init__(self) -> None:
        """Fail."""
        raise OSError("no device")
