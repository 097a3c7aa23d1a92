"""A mutant: the reference with a bug, declared as what is changed in its own source.

So the clause it breaks, its reading in float32, in float64 or with bounds, and its outputs on any input follow by
themselves.
"""

import re
from typing import NamedTuple

from moespec_conformance.edits import Edit

WORD = re.compile(r"\w+")
KEEPING = ("vars", "HELD")  # where memory is kept


class Mutant(NamedTuple):
    """A bug that somebody had, or that two sources disagree about."""

    slug: str
    clause: str
    symptom: str  # one sentence
    edits: tuple[Edit, ...]
    cite: str  # where it was seen; "guess" where nobody reported it
    trigger: str  # the input that shows it
    direction: str = "forward"  # forward | backward | training | config

    @property
    def remembers(self) -> bool:
        """Whether it keeps something from one call to the next: on a function, or in what it calls HELD."""
        return any(
            (edit.name and edit.name in edit.new) or set(KEEPING) & set(WORD.findall(edit.new)) for edit in self.edits
        )
