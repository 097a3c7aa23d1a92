"""A run as a picture: the roofline with every op, and time against tokens and experts (needs the extra `plots`)."""

from pathlib import Path
from typing import Any

from moespec_conformance.address import Usage


def draw(found: dict[str, Any], path: Path) -> None:
    """Write an SVG; the same run gives the same bytes."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - only where it is installed
    except ImportError:
        raise Usage("a picture needs matplotlib: pip install 'moespec[plots]'") from None
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "moespec"
    import matplotlib.pyplot as plt  # noqa: PLC0415 - likewise

    figure: Any
    panels: Any
    figure, panels = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    figure.suptitle(f"moespec bench, {found['device']}, {found['date']}")
    roofline(panels[0], found)
    if found.get("growth"):
        tokens(panels[1], found["growth"]["tokens"])
        experts(panels[2], found["growth"]["experts"])
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def roofline(panel: Any, found: dict[str, Any]) -> None:  # noqa: ANN401 - matplotlib's
    """FLOPs a second against FLOPs a byte of input and output, under what the machine allows."""
    flop, copy = found["rates"]["sgemm"], found["rates"]["copy"]
    points = [(r["op"], r["flops"] / r["bytes"], r["flops"] / r["seconds"]) for r in found["rows"] if r.get("flops")]
    low, high = (f(x for _, x, _ in points) for f in (min, max)) if points else (0.1, 100.0)
    corner = flop / copy
    x = [low / 2, min(max(corner, low / 2), high * 2), high * 2]
    panel.loglog(x, [min(flop, copy * each) for each in x], color="black")
    for name, intensity, rate in points:
        panel.plot([intensity], [rate], "o", markersize=4)
        panel.annotate(name, (intensity, rate), fontsize=6, xytext=(3, 3), textcoords="offset points")
    panel.set(title="roofline (float32)", xlabel="FLOPs a byte of inputs and outputs", ylabel="FLOPs a second")


def tokens(panel: Any, found: dict[str, Any]) -> None:  # noqa: ANN401 - matplotlib's
    """CPU seconds of the layer, and a line through the last of them that grows as the tokens do."""
    x, y = found["tokens"], found["seconds"]
    panel.loglog(x, y, "o-", label="CPU seconds")
    panel.loglog(x, [y[-1] * each / x[-1] for each in x], "--", color="gray", label="in proportion to tokens")
    panel.set(title="the layer at fixed experts", xlabel="tokens", ylabel="seconds")
    panel.legend()


def experts(panel: Any, found: dict[str, Any]) -> None:  # noqa: ANN401 - matplotlib's
    """CPU seconds of the gate and of all else, with ever more experts that nobody chose."""
    panel.loglog(found["experts"], found["beside_seconds"], "o-", label="beside the gate")
    panel.loglog(found["experts"], found["gate_seconds"], "o-", label="the gate")
    panel.set(title="experts, of which the first 8 are chosen", xlabel="experts", ylabel="CPU seconds")
    panel.legend()
