"""Products as single tensor cores compute them: probes of one rounding each, and many ordinary sums (ACC-3, ACC-4)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from moespec_conformance.cases.grids import GRIDS, any_codes, stored
from moespec_conformance.cases.inputs import Draw, Tensor, fp8_config
from moespec_conformance.cases.products import (
    Config,
    by_row,
    codes_of,
    fingerprint,
    one,
    one_sign,
    ones,
    ordinary,
    subnormal,
)
from moespec_conformance.protocol import Case, Tensors

CLAUSES = {"hopper": ("ACC-3",), "ada": ("ACC-3",), "blackwell": ("ACC-4",)}
WORDS = {
    "hopper": "Hopper's FP8 tensor cores (H100, H200, H800)",
    "ada": "Ada's (L40S, RTX 40)",
    "blackwell": "a B200's on its older path",
}
Factors = dict[int, tuple[float, float]]  # by place along C: what is in a, and in b
C = 64


def power(exponent: int) -> tuple[float, float]:
    """2**exponent as a product of two normal numbers of E4M3."""
    half = max(min(exponent // 2, 8), -6)
    return 2.0**half, 2.0 ** (exponent - half)


def minus(pair: tuple[float, float]) -> tuple[float, float]:
    """Its opposite."""
    return -pair[0], pair[1]


def probes(fmt: str) -> list[Factors]:
    """Sums that only one kind of unit answers in one way."""
    grid = GRIDS[fmt]
    most, small, least = 2 - 2.0**-grid.mantissa, power(grid.emin + 8 - 14), 2.0 ** (grid.emin - grid.mantissa)
    made: list[Factors] = []
    for bits in range(8, 28):  # how many bits below the largest a term still counts, alone and taken off
        large = min(bits - 12, 16) if bits > 17 else 5  # noqa: PLR2004 - the smallest product of normal numbers is 2**-12
        lower = power(large - bits)
        made += [{0: power(large), 1: lower}, {0: power(large), 1: minus(lower)}, {0: minus(power(large)), 1: lower}]
    for place in (2, 7, 8, 15, 16, 17, 31, 32, 33, 63):  # which terms meet the large ones
        made += [{0: power(6), 1: minus(power(6)), place: power(-8)}]
        made += [{0: power(6), place: minus(power(6)), 3: power(-8)}]
    made += [
        {0: (1.5, 1.5), 1: (1.75, 1.0), 2: power(-12)},  # a carry, and what it cuts off
        dict.fromkeys(range(32), (most, most)),  # five bits of carry
        dict.fromkeys(range(64), (-most, most)),
        {0: (1.5, 1.5), 1: (-1.5, 1.5), 2: power(-12)},  # products are not normalised
        {0: (least, 2.0**8), 1: small},  # a subnormal factor has the least exponent
        {0: (least, 2.0**8), 1: small, 2: small},
        {0: (least, least), 1: (3 * least, 2.0**-6)},
        {0: (3 * least, 1.0), 1: (least, 2.0**-5)},
        {},
    ]
    return made


def probed(fmt: str) -> Tensors:
    """Every probe in a row of a and a row of b: the sums wanted stand on the diagonal, others beside it."""
    rows = probes(fmt)
    a, b = np.zeros((2, len(rows), C))
    for row, factors in enumerate(rows):
        for k, pair in factors.items():
            a[row, k], b[row, k] = pair
    scale = np.ones((len(rows), 1), np.float32)
    t = {"a_codes": stored(codes_of(a, fmt), fmt), "a_scale": scale}
    return {**t, "b_codes": stored(codes_of(b, fmt), fmt), "b_scale": scale[:1]}


def started(draw: Draw, tensors: Tensors) -> Tensors:
    """An accumulator that is not 0: a power of two, and one bit 8 … 24 places below it; of any sign."""
    shape = len(tensors["a_codes"]), len(tensors["b_codes"])
    places = 8 + draw.integers(*shape, bits=20) % 17
    sign = 1 - 2.0 * draw.integers(*shape, bits=1)
    c = np.exp2(draw.integers(*shape, bits=3) - 4.0) * sign * (1 + np.exp2(-places.astype(np.float64)))
    return {**tensors, "c": c.astype(np.float32)}


def probe(unit: str, slug: str, fmt: str, *, start: bool = False, **how: Any) -> Case:  # noqa: ANN401 - config values
    """A case of probes."""
    name = f"matmul-fp8-{unit}-{slug}"
    cfg = fp8_config(accumulate=unit, a_format=fmt, b_format=fmt, a_block=[1, 128], b_block=[128, 128], **how)

    def build() -> Tensors:
        return started(Draw(name), probed(fmt)) if start else probed(fmt)

    return Case(name, "matmul_fp8", cfg, build, CLAUSES[unit], "exact", profiles=(unit,))


def near_one(draw: Draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers of a few binades: most terms keep their bits, and sums lose some."""
    middle = codes_of(np.asarray(1.0), name)
    step = codes_of(np.asarray(2.0), name) - middle
    size = middle - 2 * step + draw.integers(*shape, bits=20) % (4 * step)
    return np.asarray(size + (draw.integers(*shape, bits=1) << 7))


def skewed(draw: Draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """A few large numbers amid any others."""
    codes = any_codes(draw, name, *shape)
    small = codes % (48 if name == "e4m3" else 60) + (codes & 128)
    return np.where(draw.integers(*shape, bits=4) == 0, codes, small)


def half_subnormal(draw: Draw, name: str, shape: tuple[int, ...]) -> Tensor:
    """Subnormal numbers, and in every fourth column any others but large ones: the exponents of both kinds meet."""
    others = any_codes(draw, name, *shape)
    others = np.where(others % 128 < 96, others, others - 32)  # noqa: PLR2004
    return np.where(np.arange(shape[-1]) % 4 < 3, subnormal(draw, name, shape), others)  # noqa: PLR2004


def sums(unit: str) -> Iterator[Case]:
    """Ordinary sums, promoted or not."""
    how: Config = {"accumulate": unit, "kind": "exact", "profiles": (unit,)}
    clauses = (*CLAUSES[unit], "LIN-1", "LIN-2")
    for every in (32, 64, 128):
        yield one(f"{unit}-every-{every}", clauses, (24, 40, 640), promote_every=every, **how)
    wide: Config = {"promote_every": 256, "a_block": [1, 256], "b_block": [128, 256]}
    yield one(f"{unit}-every-256", clauses, (24, 40, 640), **wide, **how)
    never: Config = {"promote_every": 0, "scale": by_row, **how}
    yield one(f"{unit}-unpromoted", (*clauses, "LIN-3"), (24, 40, 640), **never)
    yield one(f"{unit}-unpromoted-accumulated", (*clauses, "LIN-3"), (24, 40, 640), c="any", **never)
    yield one(f"{unit}-accumulated", clauses, (24, 40, 640), c="any", **how)
    yield one(f"{unit}-one-sign", clauses, (8, 24, 2048), codes=one_sign, **how)
    yield one(f"{unit}-one-sign-unpromoted", (*clauses, "LIN-3"), (8, 24, 2048), codes=one_sign, **never)
    for slug, codes in {
        "near-one": near_one,
        "skewed": skewed,
        "subnormal": half_subnormal,
        "ordinary": ordinary,
    }.items():
        for fmt in ("e4m3", "e5m2"):
            both: Config = {"a_format": fmt, "b_format": fmt, "codes": codes}
            yield one(f"{unit}-{slug}-{fmt}", clauses, (48, 48, 512), **both, **how)
    yield one(f"{unit}-mixed", clauses, (24, 40, 640), a_format="e5m2", codes=near_one, **how)
    for tail in (24, 40, 130):
        yield one(f"{unit}-width-{tail}", clauses, (16, 24, tail), **how)
    for every in (0, 32, 128, 256):
        marked: Config = {"promote_every": every, "codes": fingerprint, "scale": ones}
        blocks: Config = {"a_block": [1, 256], "b_block": [128, 256]} if every == 256 else {}  # noqa: PLR2004
        yield one(f"{unit}-fingerprint-{every}", ("ACC-5", *clauses), (16, 16, 1024), **marked, **blocks, **how)


def cases() -> Iterator[Case]:
    """Each kind of unit."""
    for unit, clauses in CLAUSES.items():
        for fmt in ("e4m3", "e5m2"):
            yield probe(unit, f"probes-{fmt}", fmt)
        yield probe(unit, "probes-started", "e4m3", start=True, promote_every=0)
        yield probe(unit, "probes-e5m2-started", "e5m2", start=True, promote_every=0)
        yield from sums(unit)
        if unit == "blackwell":
            packed: Config = {"a_format": "e2m1", "b_format": "e2m1", "a_block": [1, 32], "b_block": [1, 32]}
            how: Config = {"accumulate": unit, "kind": "exact", "profiles": (unit,)}
            yield one(f"{unit}-e2m1", clauses, (24, 40, 640), **packed, **how)
            yield one(f"{unit}-e4m3-by-e2m1", clauses, (24, 40, 640), b_format="e2m1", b_block=[1, 32], **how)
