"""Where an op's time goes: CPU seconds by function of the reference, its callees' apart."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from types import FrameType


def spent(call: Callable[[], object]) -> dict[str, float]:
    """CPU seconds of one run, by file and function; what NumPy does counts for the function that asks it."""
    seconds: defaultdict[str, float] = defaultdict(float)
    open_steps = ["elsewhere"]
    last = time.thread_time()

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal last
        now = time.thread_time()
        seconds[open_steps[-1]] += now - last
        if event == "call":
            open_steps.append(step_of(frame) or open_steps[-1])
        elif event == "return" and len(open_steps) > 1:
            open_steps.pop()
        last = time.thread_time()

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return {step: s for step, s in seconds.items() if step != "elsewhere"}


def step_of(frame: FrameType) -> str:
    """The reference's file and function, or nothing if it is somebody else's."""
    module = str(frame.f_globals.get("__name__", ""))
    return f"{module.removeprefix('moespec.')}.{frame.f_code.co_name}" if module.startswith("moespec.") else ""
