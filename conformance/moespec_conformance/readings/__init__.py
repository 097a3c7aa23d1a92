"""The reference's own lines, read by other kinds of array: bounds, spreads, portable bits, foreign arrays, shapes."""

from moespec_conformance.readings import elementary, grids

__all__ = ["elementary", "grids"]  # they give Bounded its functions
