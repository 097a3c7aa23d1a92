"""How published code chooses a block's scale and divides by it: recipes, each a named value (SPEC: QNT)."""

from typing import NamedTuple


class Recipe(NamedTuple):
    """The arithmetic of one quantiser, and the formats and blocks its authors use it with."""

    floor: float = 1e-4  # QNT-2: a block's largest magnitude counts as at least this
    floor_fp4: float = 6 * 2.0**-126  # the same for E2M1
    scale_of: str = "ratio"  # QNT-2: "ratio" largest / grid's largest; "inverse" one over the other; "floor" OCP's
    apply: str = "divide"  # QNT-4: "divide" x / scale, "reciprocal" x * (1 / scale), "inverse" x * (largest / amax)
    odd_scale: float = float("nan")  # QNT-5: the scale of a block that holds NaN or infinity
    zero_scale: float | None = None  # QNT-5: the scale of a block of zeros; None: as the floor says
    skips_nan: bool = False  # QNT-5: a block's largest magnitude is sought among what is not NaN
    wgrad_from: str = "codes"  # MFP-6: the weight gradient's blocks are made from FP8 "codes", or from "values"
    dispatch_scale: str | None = None  # MFP-2: the scale format of what is sent between ranks; None: as the others
    format: str = "e4m3"
    a_format: str = "e4m3"
    b_format: str = "e4m3"
    block: tuple[int, int] = (1, 128)
    a_block: tuple[int, int] = (1, 128)
    b_block: tuple[int, int] = (128, 128)
    scale_format: str = "float32"


SMALLEST = 2.0**-149  # of float32: only a block of zeros is raised to it
MX = Recipe(
    floor=SMALLEST,
    floor_fp4=SMALLEST,
    wgrad_from="values",
    block=(1, 32),
    a_block=(1, 32),
    b_block=(1, 32),
    scale_format="ue8m0",
)
RECIPES = {
    "deepseek-v3": Recipe(dispatch_scale="ue8m0"),
    "deepseek-v3.1": Recipe(scale_format="ue8m0"),
    "deepgemm": Recipe(apply="reciprocal", floor_fp4=1e-4),
    "tilekernels": Recipe(apply="inverse"),
    "transformer-engine": Recipe(
        floor=SMALLEST,
        floor_fp4=SMALLEST,
        scale_of="inverse",
        apply="inverse",
        odd_scale=1.0,
        zero_scale=1.0,
        skips_nan=True,
        wgrad_from="values",
        scale_format="ue8m0",
    ),
    "torchao": Recipe(floor=1e-12, floor_fp4=1e-12, scale_of="inverse", apply="inverse", wgrad_from="values"),
    "mx-floor": MX._replace(scale_of="floor"),
    "mx-rceil": MX,
    "deepseek-v4-fp4": Recipe(format="e2m1", block=(1, 32), b_format="e2m1", b_block=(1, 32), scale_format="ue8m0"),
}
