"""The catalogue of bugs: the reference with small wrong edits, each with its citation, and what becomes of them."""

from moespec_conformance.mutants.catalogue import MUTANTS

__all__ = ["MUTANTS"]
