"""The steps of a failed case, if they were traced: which is the first to differ, and by how much each does."""

from rich.text import Text

from moespec_conformance.protocol import Result
from moespec_conformance.report.words import ratio


def divergence(result: Result) -> Text:
    """Where the implementation first parts from the reference; then one line a stage, in order of the computation."""
    first = next(step for step in result.trace if step["status"] == "fail")
    place = f" at {first['where']}" if first["where"] else ""
    made = Text.assemble(("first divergence  ", "bold"), f"{first['stage']}{place}\n")
    width = max(len(step["stage"]) for step in result.trace)
    made.append(f"{'stage':{width}}  error/bound\n", "bold")
    for step in result.trace:
        made.append(f"{step['stage']:{width}}  {ratio(step['error_over_bound']):>11}  ")
        said = ("WRONG", "red") if step["status"] == "fail" else ("ok", "green")
        made.append_text(Text.assemble(said, f"  {step['where']}".rstrip(), "\n"))
    return made
