"""What a MoE layer is, in Hugging Face's names: flat, frozen, checked once (SPEC: CFG)."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from moespec.fields import BEST, FLAGS, NEUTRAL, SIZES, WORDS
from moespec.fields_fp8 import BLOCKS, FP8_NEUTRAL, FP8_WORDS, abridged, completed, misfits, wrong_block


def require(condition: object, message: str) -> None:
    """Refuse bad input: message begins with the clause it breaks."""
    if not condition:
        raise ValueError(message)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """One MoE layer. Every field is given; none has a default that would choose an architecture."""

    hidden_size: int
    moe_intermediate_size: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    group_score: str | None
    scoring_func: str
    norm_topk_prob: bool
    routed_scaling_factor: float
    selection_bias: bool
    router: str
    choose_by: str
    softmax_over: str
    norm_when_k1: bool
    hash_routing: bool
    hidden_act: str
    gated: bool
    swiglu_limit: float | None
    weight_position: str
    capacity_factor: float | None
    drop_policy: str | None
    n_device: int
    device_limit: int
    alignment: int
    layout: str
    balance_kind: str | None
    alpha: float
    balance_topk: str
    bias_update: str
    bias_update_rate: float
    rms_norm_eps: float
    recipe: str
    format: str
    a_format: str
    b_format: str
    block: tuple[int, int]
    a_block: tuple[int, int]
    b_block: tuple[int, int]
    scale_format: str
    overflow: str
    accumulate: str
    promote_every: int
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    learning_rate: float
    weight_decay: float
    moment_format: str

    def __post_init__(self) -> None:
        """Check every clause of CFG; a ValueError begins with the clause that is broken."""
        self._check_sizes()
        self._check_words()
        self._check_groups()
        self._check_router()
        self._check_numbers()
        self._check_fp8()

    def _check_sizes(self) -> None:
        for name in SIZES:
            size = getattr(self, name)
            require(_whole(size) and size >= 1, f"CFG-1: {name} must be a whole number of at least 1, not {size!r}")
        shared, e, k = self.n_shared_experts, self.n_routed_experts, self.num_experts_per_tok
        require(_whole(shared) and shared >= 0, f"CFG-1: n_shared_experts must be 0 or more, not {shared!r}")
        require(k <= e, f"CFG-2: num_experts_per_tok {k} exceeds n_routed_experts {e}")
        require(e % self.n_device == 0, f"CFG-15: n_routed_experts {e} is not a multiple of n_device {self.n_device}")
        reached = _whole(self.device_limit) and 1 <= self.device_limit <= self.n_device
        require(reached, f"CFG-15: device_limit must lie in 1 … n_device {self.n_device}, not {self.device_limit!r}")

    def _check_words(self) -> None:
        for name, (clause, legal) in {**WORDS, **FP8_WORDS}.items():
            value = getattr(self, name)
            require(value in legal, f"{clause}: {name} is one of {legal}, not {value!r}")
        for name in FLAGS:
            value = getattr(self, name)
            require(isinstance(value, bool), f"CFG-8: {name} must be true or false, not {value!r}")

    def _check_groups(self) -> None:
        e, g, m, k = self.n_routed_experts, self.n_group, self.topk_group, self.num_experts_per_tok
        require(e % g == 0, f"CFG-3: n_routed_experts {e} is not a multiple of n_group {g}")
        require(_whole(m) and 1 <= m <= g, f"CFG-4: topk_group must lie in 1 … n_group {g}, not {m!r}")
        require(m * (e // g) >= k, f"CFG-5: {m} groups of {e // g} hold fewer than num_experts_per_tok {k} experts")
        legal = tuple(BEST) if g > 1 and self.router == "topk" else (None,)
        require(self.group_score in legal, f"CFG-6: group_score is one of {legal}, not {self.group_score!r}")
        require(e // g >= self.n_best, f"CFG-6: {self.group_score} needs {self.n_best} experts a group, not {e // g}")

    def _check_router(self) -> None:
        router, softmax, norm = self.router, self.scoring_func == "softmax", self.norm_topk_prob
        over_all, topk = self.softmax_over == "all", router == "topk"
        require(over_all or (softmax and not norm), "CFG-11: softmax_over chosen is softmax, and normalised already")
        alone = softmax and not self.selection_bias and not norm
        require((topk and over_all) or alone, f"CFG-12: {router} is softmax, without a bias or norm_topk_prob")
        groups = (topk and over_all) or router == "hierarchical"
        require(groups or self.n_group == 1, f"CFG-12: {router} by a softmax over {self.softmax_over} knows no groups")
        legal = {"topk": (True, False), "noisy_topk": (False,)}.get(router, (True,))
        require(over_all in legal, f"CFG-12: softmax_over is chosen in noisy_topk, and may be in topk, not in {router}")
        require(router != "expert_choice" or self.capacity_factor is not None, "CFG-12: expert_choice needs a capacity")
        even = self.num_experts_per_tok % self.topk_group == 0
        require(router != "hierarchical" or even, "CFG-12: hierarchical chooses equally many in each chosen group")
        require(not self.hash_routing or (topk and not self.selection_bias), "CFG-12: hash_routing chooses alone")

    def _check_numbers(self) -> None:
        for name, clause in {"routed_scaling_factor": "CFG-7", "rms_norm_eps": "NRM-4"}.items():
            value = getattr(self, name)
            require(_real(value) and value > 0, f"{clause}: {name} must be > 0, not {value!r}")
        for name, clause in {"swiglu_limit": "CFG-13", "capacity_factor": "CFG-14"}.items():
            value = getattr(self, name)
            require(value is None or (_real(value) and value > 0), f"{clause}: {name} is null or > 0, not {value!r}")
        require(self.swiglu_limit is None or self.gated, "CFG-13: swiglu_limit needs a gated expert")
        drops = self.capacity_factor is not None and self.router != "expert_choice"
        require(drops == (self.drop_policy is not None), "CFG-14: capacity_factor and drop_policy go together")
        ranked = self.router == "topk" and self.softmax_over == "all"
        require(ranked or self.drop_policy not in {"gshard", "reroute"}, f"CFG-14: {self.drop_policy} needs all scores")
        for name in ("alpha", "bias_update_rate"):
            value = getattr(self, name)
            require(_real(value) and value >= 0, f"CFG-16: {name} must be 0 or more, not {value!r}")

    def _check_fp8(self) -> None:
        for name in BLOCKS:
            block = getattr(self, name)
            require(not wrong_block(block), f"CFG-18: {name} is two whole numbers of at least 1, not {block!r}")
        every = self.promote_every
        require(
            _whole(every) and every >= 0, f"CFG-19: promote_every must be a whole number of 0 or more, not {every!r}"
        )
        wrong = misfits(vars(self))
        require(not wrong, wrong)
        for name in ("adam_beta1", "adam_beta2", "adam_epsilon", "learning_rate", "weight_decay"):
            value = getattr(self, name)
            require(_real(value) and value >= 0, f"CFG-20: {name} must be 0 or more, not {value!r}")
        lasting = max(self.adam_beta1, self.adam_beta2)
        require(lasting < 1, f"CFG-20: adam_beta1 and adam_beta2 must be below 1, not {lasting!r}")
        stalls = self.moment_format == "bfloat16" and 1 - lasting < 2.0**-8
        require(not stalls, f"CFG-20: a bfloat16 moment cannot decay by less than 2^-8 a step, as {lasting!r} asks")

    @property
    def experts_per_group(self) -> int:
        """E // G: a group is this many experts with consecutive ids."""
        return self.n_routed_experts // self.n_group

    @property
    def n_best(self) -> int:
        """GATE-4: how many of its experts speak for a group."""
        return BEST.get(self.group_score or "max", 1)

    @property
    def shared_width(self) -> int:
        """S * F: the width of the one network that all shared experts form."""
        return self.n_shared_experts * self.moe_intermediate_size

    @property
    def normalises(self) -> bool:
        """GATE-7: whether a token's weights are made to share one whole."""
        return self.norm_topk_prob and (self.num_experts_per_tok > 1 or self.norm_when_k1)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Read a flat mapping; CFG-10: no field unknown, none missing but those with a neutral value."""
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(config) - names), sorted(names - set(config) - set(NEUTRAL) - set(FP8_NEUTRAL))
        require(not unknown, f"CFG-10: unknown config fields {unknown}")
        require(not missing, f"CFG-10: missing config fields {missing}")
        return cls(**{**NEUTRAL, **completed(config)})

    def to_dict(self) -> dict[str, Any]:
        """The flat mapping that from_dict reads back, without what CFG-18 completes: short forms may be added to it."""
        return abridged(asdict(self))
