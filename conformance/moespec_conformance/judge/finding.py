"""What the judge found of one output."""

from typing import NamedTuple


class Finding(NamedTuple):
    """What one output showed."""

    status: str
    kind: str
    ratio: float | None
    message: str = ""
