"""`moespec fingerprint`: ways to add are told apart, and one that is not known is not guessed (ACC-5)."""

import json
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest

from moespec.accumulate import UNITS, Unit, fused
from moespec.formats import FORMATS, decode
from moespec.storage import inside
from moespec_conformance.adapters.reference import Adapter
from moespec_conformance.cli import main
from moespec_conformance.fingerprint import Found, told
from moespec_conformance.probes import (
    ORDERS,
    C,
    Model,
    Probe,
    by_order,
    columns,
    first_round,
    rows_of,
    scaled,
    second_round,
)
from moespec_conformance.protocol import NotSupported
from moespec_conformance.runner import InProcess

pytestmark = pytest.mark.spec("ACC-5")
E4M3 = FORMATS["e4m3"]
HERE = "conformance/house/test_fingerprint.py"


def asked(adapter: Any, accumulate: str = "promoted", promote_every: int = 128) -> Found:
    """What is told of an adapter."""
    return told(InProcess(adapter), accumulate, promote_every)


class Gemm:
    """A product by `model`, each stretch times its scales by `order`; `bits` says what is stored."""

    name, version = "gemm", "1"
    model: ClassVar[Model] = Model("unit", tuple(range(128, C, 128)), UNITS["hopper"])
    store: ClassVar[Any] = np.float32

    def matmul_fp8(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Scales of 1 only, but for what `scaled` asks."""
        a, b = (np.asarray(decode(inside(t[f"{o}_codes"], E4M3), E4M3), np.float32) for o in "ab")
        return {"y": self.sums(config, a, b, t).astype(self.store).astype(np.float32)}

    def sums(self, *args: Any) -> Any:
        """One scale for the whole of C, at the end, unless the scales differ along it."""
        _, a, b, t = args
        sa, sb = t["a_scale"], t["b_scale"]
        if (sa == sa[:, :1]).all() and (sb == sb[:, :1]).all():
            return self.model.answer(a, b) * (sa[:, :1] * sb[:1, :1])
        raise NotSupported("scales that differ along C")


class Stores(Gemm):
    """Hopper, promoted, rounded to bfloat16 and handed out as float32."""

    store: ClassVar[Any] = ml_dtypes.bfloat16


class Wide(Gemm):
    """A unit that nobody built."""

    model: ClassVar[Model] = Model("unit", (), Unit(48, 17, 23))


class Odd(Gemm):
    """Another, with a sum of bits that the probes cannot read."""

    model: ClassVar[Model] = Model("unit", (), Unit(48, 17, 19))


class Half(Gemm):
    """Sums in float16."""

    def sums(self, *args: Any) -> Any:
        """In order of C."""
        _, a, b, _ = args
        total = np.zeros((len(a), len(b)), np.float16)
        with np.errstate(over="ignore", invalid="ignore"):
            for x, w in zip(a.T, b.T, strict=True):
                total = (total + x[:, None] * w).astype(np.float16)
        return total


class Lanes(Gemm):
    """Eight interleaved float32 sums, added at the end."""

    def sums(self, *args: Any) -> Any:
        """Lane by lane."""
        _, a, b, _ = args
        parts = [Model("float32").answer(a[:, lane::8], b[:, lane::8]) for lane in range(8)]
        return np.sum(parts, axis=0, dtype=np.float32)


class Narrow(Adapter):
    """Blocks of 128 only."""

    def __getattr__(self, op: str) -> Any:
        """The reference, but for wide blocks."""
        compute = super().__getattr__(op)

        def method(config: dict[str, Any], **t: Any) -> dict[str, Any]:
            if config["a_block"] != [1, 128]:
                raise NotSupported("blocks of 128 only")
            return dict(compute(config, **t))

        return method


class Scaler(Gemm):
    """Blocks of 128, scaled in some order, perhaps with fused multiply-add: by what `scaled` itself says of it."""

    way: ClassVar[tuple[str, bool]] = (ORDERS[0], True)

    def sums(self, *args: Any) -> Any:
        """Rounded as this way rounds, from the operands as they come."""
        _, a, b, t = args
        sa, sb = t["a_scale"], t["b_scale"]
        if len(sa[0]) == 1:  # one block: each product by itself, in order of C
            terms = [(x * sa[:, 0])[:, None] * w for x, w in zip(a.T, b.T, strict=True)]
            return np.sum(terms, axis=0, dtype=np.float32)
        kept = [by_order(a, sa, sb, self.way) - sa[:, 2]] if a[:, 0].any() else [np.zeros(len(a), np.float32)]
        return np.repeat(kept[0][:, None], len(b), axis=1)


class Refuses(Gemm):
    """No product at all."""

    def sums(self, *_: Any) -> Any:
        """Refuse."""
        raise NotSupported("no")


class Short(Gemm):
    """One column too few."""

    def matmul_fp8(self, config: dict[str, Any], **t: Any) -> dict[str, Any]:
        """Leave it out."""
        return {"y": super().matmul_fp8(config, **t)["y"][:, 1:]}


WAYS = [
    (accumulate, promote_every)
    for accumulate in ("exact", "promoted", "hopper", "ada", "blackwell")
    for promote_every in (0, 32, 64, 128, 256)
    if promote_every or accumulate != "promoted"  # that would be float32
]


@pytest.mark.parametrize(("accumulate", "promote_every"), WAYS)
def test_ways_to_add_are_told_apart(accumulate: str, promote_every: int) -> None:
    """The rule and the interval, whichever the reference is asked with."""
    found = asked(Adapter(), accumulate, promote_every)
    assert (found.accumulate, found.promote_every) == (accumulate, promote_every), found.says
    assert found.output == "float32"
    ended = not promote_every
    assert found.scales == ("sum * scale, once at the end" if ended else f"{ORDERS[0]}, then added")


@pytest.mark.parametrize("promote_every", [0, 128])
def test_float32_throughout_is_told_from_promotion(promote_every: int) -> None:
    """BLAS may cut C where it likes, or use several sums at once: then no order is named."""
    found = asked(Adapter(), "float32", promote_every)
    assert found.accumulate in ("float32", None)
    assert "float32" in found.says
    assert "`promoted`" not in found.says


def test_one_float32_accumulator() -> None:
    """In order of C, nothing between."""

    class One(Gemm):
        model: ClassVar[Model] = Model("float32")

    found = asked(One())
    assert (found.accumulate, found.promote_every) == ("float32", 0)
    assert found.says == "one float32 accumulator, in order of C"


def test_the_fingerprint_of_the_specification() -> None:
    """ACC-5: 16384 + (1024 - P), 16384 without promotion, 17407 exactly."""
    for accumulate, promote_every, total in (("hopper", 128, 17280), ("ada", 0, 16384), ("exact", 0, 17407)):
        assert asked(Adapter(), accumulate, promote_every).evidence[0].endswith(f": {total}")


def test_what_a_narrow_output_hides_is_said() -> None:
    """The unit shows all the same."""
    found = asked(Stores())
    assert (found.accumulate, found.promote_every, found.output) == ("hopper", 128, "bfloat16")
    assert "the output is bfloat16" in found.says


def test_a_unit_without_a_name_is_described() -> None:
    """Products a step and bits are read off; no name is given."""
    found = asked(Wide())
    assert (found.accumulate, found.step, found.term_bits, found.sum_bits) == ("unit", 48, 17, 23)
    assert "no unit that is known here" in found.says


def test_what_is_not_known_is_not_guessed() -> None:
    """float16 sums are nobody's; interleaved float32 sums have an order that is not told."""
    half, odd, lanes = asked(Half()), asked(Odd()), asked(Lanes())
    assert [found.accumulate for found in (half, odd, lanes)] == [None] * 3
    assert half.says.startswith("not told")
    assert odd.says.startswith("not told")
    assert lanes.says.startswith("as good as float32 sums")


def test_blocks_of_128_hide_longer_intervals() -> None:
    """It is said that they do."""
    found = asked(Narrow(), "hopper", 256)
    assert (found.accumulate, found.promote_every) == ("hopper", 128)
    assert "wider ones are not offered" in found.evidence[-1]


@pytest.mark.parametrize("fma", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_orders_of_scales_are_told_apart(order: str, fma: bool) -> None:  # noqa: FBT001 - a parameter
    """Each of them, fused or not."""

    class Way(Scaler):
        way: ClassVar[tuple[str, bool]] = (order, fma)

    assert asked(Way()).scales == order + (", added by fused multiply-add" if fma else ", then added")


def test_every_probe_is_made_of_e4m3_numbers() -> None:
    """Else something else would be asked."""
    rng = np.random.default_rng(5)
    b = columns(rng)
    probes: list[list[Probe]] = [first_round(), *(second_round(t, s) for t in (13, 17, 25) for s in (13, 23))]
    for some in probes:
        a = rows_of(some, b)
        for x in (a, b, scaled(rng).a, scaled(rng).b):
            assert (x.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) == x).all()
        for row, probe in zip(a, some, strict=False):
            assert all(row[k] * b[probe.column, k] == value for k, value in probe.products.items())


def test_a_unit_is_read_by_its_own_rule() -> None:
    """What a model answers is what the reference's accumulator answers."""
    rng = np.random.default_rng(0)
    b = columns(rng)
    a = rows_of(first_round(), b)
    zero = np.zeros((len(a), len(b)), np.float32)
    assert (Model("unit", (), UNITS["ada"]).answer(a, b) == fused(a, b, zero, (E4M3, E4M3), UNITS["ada"])).all()


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    """Run the command: exit code, output, errors."""
    with pytest.raises(SystemExit) as ended:
        main(["fingerprint", *arguments])
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """In words, and as JSON."""
    code, out, _ = command(capsys, "reference", "--accumulate", "hopper")
    assert code == 0
    assert "a Hopper FP8 unit with DeepSeek's promotion" in out
    assert "17280" in out
    code, out, _ = command(capsys, "reference", "--accumulate", "hopper", "--promote-every", "0", "--json")
    found = json.loads(out)
    assert (code, found["accumulate"], found["promote_every"], found["step"]) == (0, "hopper", 0, 32)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("reference", "--promote-every", "0"), 2, "CFG-19"),
        (("nothing-of-that-name",), 2, "no adapter"),
        ((f"{HERE}:Refuses",), 3, "not offered"),
        ((f"{HERE}:Short",), 3, "y is"),
        ((f"{HERE}:Half",), 3, "not told"),
    ],
)
def test_exit_codes(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: str) -> None:
    """Told from not told, from not asked."""
    ended, out, err = command(capsys, *arguments)
    assert ended == code
    assert words in out + err
