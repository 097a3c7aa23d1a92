"""What the judge found of one output."""

from typing import NamedTuple


class Finding(NamedTuple):
    """What one output showed: ratio is error / bound, margin how many times beyond the limit that decided.

    at: the element that says most, or only its token.
    """

    status: str
    kind: str
    ratio: float | None
    message: str = ""
    margin: float | None = None
    at: tuple[int, ...] = ()
