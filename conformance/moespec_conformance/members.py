"""Which cases are in the corpus, and since when: golden_members.txt, one id a line, under the version it came with.

An id is never used again: one that leaves the corpus moves below the line `retired`.
"""

from functools import cache
from importlib.resources import files

from moespec_conformance.cases import PROFILES, models

VERSION = "2.0.0"  # MAJOR: the format; MINOR: cases came; PATCH: an answer was wrong (golden/README.md, errata)
FILE = files("moespec_conformance").joinpath("golden_members.txt")
RETIRED = "retired"

# fewer cases of a profile than this, and the corpus has been damaged
FLOOR = {
    **dict.fromkeys(PROFILES, 1),
    **dict.fromkeys(models.WORDS, 7),
    **dict.fromkeys(models.profiles_of("deepseek-v3"), 25),
    **dict.fromkeys(("expert-choice", "hierarchical", "layouts", "ranks"), 7),
    **dict.fromkeys(("noisy-topk", "softmax-over-chosen", "moments"), 5),
    **dict.fromkeys(("fp8-exact", "fp8-products", "hopper"), 4),
    "balance": 30,
    "capacity": 20,
    "fp8": 20,
    "norm-loss": 15,
    "jacobs-jordan": 10,
    "reject": 35,
}


@cache
def history() -> dict[str, tuple[str, ...]]:
    """Ids by the version of the corpus that they came with, and those retired."""
    _, *parts = FILE.read_text(encoding="utf-8").split("# ")
    versions = (part.split() for part in parts)
    return {version: tuple(ids) for version, *ids in versions}


@cache
def member_ids() -> tuple[str, ...]:
    """Every id of the corpus, in order."""
    return tuple(sorted(name for version, ids in history().items() if version != RETIRED for name in ids))
