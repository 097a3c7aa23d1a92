"""The steps of a failed case as a table, if they were traced."""

from rich.table import Table
from rich.text import Text

from moespec_conformance.protocol import Result


def divergence(result: Result) -> Text:
    """Where the implementation first parts from the reference."""
    first = next(step for step in result.trace if step["status"] == "fail")
    place = f", {first['where']}" if first["where"] else ""
    return Text.assemble(("first divergence  ", "bold"), f"{first['stage']}{place}")


def table(result: Result) -> Table:
    """One line a stage, in order of the computation."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "error/bound", "", "worst at"):
        made.add_column(column, justify="right" if column == "error/bound" else "left")
    for step in result.trace:
        ratio = step["error_over_bound"]
        wrong = step["status"] == "fail"
        said = Text("WRONG", "red") if wrong else Text("ok", "green")
        made.add_row(step["stage"], "-" if ratio is None else f"{ratio:.2g}", said, step["where"])
    return made
