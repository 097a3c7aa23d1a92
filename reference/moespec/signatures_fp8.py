"""The tensors of the ops of FP8 and of the optimiser: (name, letters, holds, when), as in signatures.py.

M and N are rows of two matrices, C their contraction. `C:a` holds codes of the config's a_format, two to a byte for
E2M1 (FMT-5); `M/a0` are blocks along M of the height a_block[0], a ragged one counted; likewise b, and q for `format`
and `block`.
"""

Row = tuple[str, ...]

CODES = {
    "q": (("codes", "M C:q", "codes"), ("scale", "M/q0 C/q1", "scale")),
    "a": (("codes", "M C:a", "codes"), ("scale", "M/a0 C/a1", "scale")),
    "b": (("scale", "M/b0 C/b1", "scale"), ("codes", "M C:b", "codes")),
}
A = (("a_codes", "M C:a", "codes"), ("a_scale", "M/a0 C/a1", "scale"))
B = (("b_codes", "N C:b", "codes"), ("b_scale", "N/b0 C/b1", "scale"))
IN_LINE = tuple((*row, "in_line") for row in A)
BOXED = (("a_codes", "E M C:a", "codes", "masked"), ("a_scale", "E M/a0 C/a1", "scale", "masked"))
STACK = (("b_codes", "E N C:b", "codes", "by_row"), ("b_scale", "E N/b0 C/b1", "scale", "by_row"))
MOMENTS = (("param", "M C", "float32"), ("exp_avg", "M C", "float32"), ("exp_avg_sq", "M C", "float32"))


def stack(name: str, rows: str, columns: str, when: str = "always") -> tuple[Row, ...]:
    """Codes and scales of one matrix of every expert, or of the shared one."""
    *outer, row = rows.split()
    before = " ".join([*outer, ""])
    return (
        (f"{name}_codes", f"{rows} {columns}:b", "codes", when),
        (f"{name}_scale", f"{before}{row}/b0 {columns}/b1", "scale", when),
    )


FP8_EXPERTS = (
    *stack("gate_proj", "E F", "H", "gated"),
    *stack("up_proj", "E F", "H"),
    *stack("down_proj", "E H", "F"),
    *stack("shared_gate_proj", "SF", "H", "shared_gated"),
    *stack("shared_up_proj", "SF", "H", "shared"),
    *stack("shared_down_proj", "H", "SF", "shared"),
)

# by op: inputs, outputs
FP8_ROWS: dict[str, tuple[tuple[Row, ...], tuple[Row, ...]]] = {
    "cast": ((("x", "M C", "float32"),), (("codes", "M C:q", "codes"),)),
    "quantize": ((("x", "M C", "float32"),), CODES["q"][::-1]),
    "dequantize": (CODES["q"], (("x", "M C", "float32"),)),
    "requantize": (CODES["a"], CODES["b"]),
    "lift_fp4": (CODES["a"], CODES["b"]),
    "matmul_fp8": ((*A, *B, ("c", "M N", "float32", "?always")), (("y", "M N", "float32"),)),
    "grouped_matmul_fp8": (
        (
            *IN_LINE,
            *BOXED,
            *STACK,
            *tuple((*row, "k_grouped") for row in B),
            ("group_index", "M", "index", "contiguous"),
            ("expert_end", "E", "index", "psum"),
            ("expert_count", "E", "index", "masked"),
            ("expert_size", "E", "index", "k_grouped"),
            ("c", "E M N", "float32", "k_grouped"),
        ),
        (
            ("y", "M N", "float32", "rows_in_line"),
            ("y", "E M N", "float32", "masked"),
            ("y", "E M N", "float32", "k_grouped"),
        ),
    ),
    "adamw": ((*MOMENTS, ("grad", "M C", "float32"), ("step", "", "index")), MOMENTS),
}
