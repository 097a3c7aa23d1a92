"""Block-scaled products: what rows, columns and scales do to them."""

import numpy as np
from hypothesis import strategies as st

from moespec_conformance.cases.inputs import fp8_config
from moespec_conformance.properties.engine.comparing import near, tolerances
from moespec_conformance.properties.engine.configs import Profiles
from moespec_conformance.properties.engine.drawing import HANDS, Config, Hand, picked
from moespec_conformance.properties.engine.fp8 import PAIRS, SIDE, quantised
from moespec_conformance.properties.engine.layers import also
from moespec_conformance.properties.engine.property import Ask, Property, Trial, given, of_op, question
from moespec_conformance.properties.engine.renaming import any_order
from moespec_conformance.protocol import Tensors

RULES = {"promoted": "fp8-products", "float32": "fp8-products", "exact": "fp8-exact"}
UNITS = {"hopper": "hopper", "ada": "ada"}
WIDTH = st.sampled_from((2, 4))
FACTORS = st.sampled_from((2.0, 0.25))


def adding(draw: st.DrawFn, profiles: Profiles, high: int = 1) -> Config:
    """How products are added, by blocks of one width, and `high` rows of b."""
    known = [rule for rule, profile in {**RULES, **UNITS}.items() if profile in profiles] or ["promoted"]
    width, rule = draw(WIDTH), picked(draw, known)
    how: Config = {"accumulate": rule, "promote_every": width, "a_block": [1, width], "b_block": [high, width]}
    return fp8_config(**how, scale_format=picked(draw, ("float32", "ue8m0")))


def operand(hand: Hand, config: Config, rows: int, columns: int, name: str) -> Tensors:
    """An operand's codes and scales by the names of the op."""
    held = quantised(hand, config, rows, columns, name)
    return {f"{name}_{key}": tensor for key, tensor in held.items()}


@st.composite
def products(draw: st.DrawFn, profiles: Profiles) -> Trial:
    """Two matrices."""
    config, hand, columns = adding(draw, profiles), draw(HANDS), 2 * draw(PAIRS)
    a, b = operand(hand, config, draw(SIDE), columns, "a"), operand(hand, config, draw(SIDE), columns, "b")
    return Trial(question("matmul_fp8", config, {**a, **b}), {})


def scale_multiplies(ask: Ask, trial: Trial) -> None:
    """LIN-1: scales times a power of two are a product times that power, to the last bit where sums are exact."""
    case, (name, factor) = trial.case, trial.how["factor"]
    scaled = given(case, **{name: np.asarray(factor * case.inputs[name], np.float32)})
    first, second = ask(case)["y"].astype(np.float64), ask(scaled)["y"]
    if not np.array_equal(second, factor * first):
        near(f"y under {name} times {factor:g}", second, factor * first, 2 * factor * tolerances(case)["y"])


def transposed(ask: Ask, trial: Trial) -> None:
    """LIN-1: b times a is a times b, turned over."""
    case = trial.case
    other = {"a": "b", "b": "a"}
    turned = given(case, **{f"{other[name[0]]}{name[1:]}": tensor for name, tensor in case.inputs.items()})
    first, second = ask(case)["y"].astype(np.float64), ask(turned)["y"]
    if not np.array_equal(second, first.T):
        near("the product turned over", second, first.T, 2 * tolerances(case)["y"].T)


@st.composite
def grouped(draw: st.DrawFn, profiles: Profiles) -> Trial:
    """Rows, and a matrix for each expert."""
    config, hand, columns, experts = adding(draw, profiles), draw(HANDS), 2 * draw(PAIRS), draw(st.integers(1, 3))
    one = {"n_group": 1, "topk_group": 1, "group_score": None, "num_experts_per_tok": 1}
    config |= {"n_routed_experts": experts, "layout": "contiguous", **one}
    rows, high = draw(SIDE), draw(st.integers(1, 3))
    b = operand(hand, config, experts * high, columns, "b")
    stack = {name: tensor.reshape(experts, high, -1) for name, tensor in b.items()}
    index = hand.below("group_index", experts + 1, rows) - 1
    case = question("grouped_matmul_fp8", config, {**operand(hand, config, rows, columns, "a"), **stack})
    return Trial(given(case, group_index=index), {})


def each_by_its_own(ask: Ask, trial: Trial) -> None:
    """LIN-5: a row's product is that with its own expert's matrix."""
    case, t = trial.case, trial.case.inputs
    y = ask(case)["y"]
    for expert in np.unique(t["group_index"][t["group_index"] >= 0]):
        mine = t["group_index"] == expert
        a = {name: t[name][mine] for name in ("a_codes", "a_scale")}
        alone = of_op(case, "matmul_fp8", {**a, **{name: t[name][expert] for name in ("b_codes", "b_scale")}})
        want = ask(alone)["y"].astype(np.float64)
        if not np.array_equal(y[mine], want):
            near(f"y of rows of expert {expert}", y[mine], want, 2 * tolerances(alone)["y"])


PLACES = st.tuples(st.sampled_from(("a_scale", "b_scale")), FACTORS)

FOUND = (
    any_order("matmul_fp8", "M", products, ("LIN-1",)),
    Property(
        "matmul-scale-multiplies", ("LIN-1",), ("matmul_fp8",), also(products, "factor", PLACES), scale_multiplies
    ),
    Property("matmul-turned-over", ("LIN-1",), ("matmul_fp8",), products, transposed),
    Property("grouped-each-by-its-own", ("LIN-5",), ("grouped_matmul_fp8", "matmul_fp8"), grouped, each_by_its_own),
)
