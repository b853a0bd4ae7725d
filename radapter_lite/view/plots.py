"""The figures that notebooks and figures/ share: one style, colours that the colour-blind can tell apart."""

import zlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import ImageOps

from radapter_lite.assets import STYLES
from radapter_lite.calibration import calibration, class_changes, reliability
from radapter_lite.data import ImageSet
from radapter_lite.files import StrPath

# Okabe and Ito's palette, in an order that keeps neighbours apart in grey too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# The hue says what kind of method it is, in the palette's order, the marker which one.
_MARKERS: dict[str, dict[str, str]] = {
    "R-Adapter": {"R-Adapter": "o", "R-Adapter, rank 4": "P", "R-Adapter, unwhitened": "v", "R-Adapter, stem": "h"},
    "all weights": {"FLYP": "D", "WiSE-FT": "s", "fine-tuning": "s", "LP-FT": "^"},
    "few weights": {"LoRA": "^", "linear adapter": "p"},
    "non-linear adapters": {"Houlsby adapter": "<", "AdaptFormer": ">"},
    "heads and caches": {"linear probe": "o", "CLIP-Adapter": "d", "Tip-Adapter": "*", "Tip-Adapter-F": "P"},
    "prompts": {"CoOp": "o", "prefix tuning": "X", "P-tuning": "s"},
    "no tuning": {"zero-shot": "X"},
}
FAMILIES = {family: (colour, own) for colour, (family, own) in zip(COLOURS, _MARKERS.items(), strict=True)}
METHOD_COLOURS = {method: colour for colour, markers in FAMILIES.values() for method in markers}
METHOD_MARKERS = {method: marker for _, markers in FAMILIES.values() for method, marker in markers.items()}
# Methods of others: in hues of no family, from Tol's muted palette.
OTHERS = list(product(("#000000", "#882255", "#999933"), sorted({*METHOD_MARKERS.values()})))
# In units of a line's width, so that lines are told apart without colour too.
DASHES = ((), (4, 2), (1.2, 1.5), (5, 1.6, 1.2, 1.6), (7, 2.5), (2.2, 2.2), (0.8, 3))


def look(method: str, size: float = 9, is_open: bool = False) -> dict[str, Any]:
    """Keyword arguments of `plot` for a method's own marker, or for that of `OTHERS` which its name leads to.

    Where a figure shows both, a filled marker is α = 0.5, and an open one α = 1 or a method without α.
    """
    other = OTHERS[zlib.crc32(method.encode()) % len(OTHERS)]
    colour, marker = METHOD_COLOURS.get(method, other[0]), METHOD_MARKERS.get(method, other[1])
    size = 1.5 * size if marker == "*" else size  # a star of one size looks smaller than the rest
    edge = {"mfc": "white", "mec": colour, "mew": 1.6} if is_open else {"mec": "white", "mew": 0.8}
    return {"color": colour, "marker": marker, "ms": size, **edge}


def line_look(place: int, name: str, is_id: bool = False) -> dict[str, Any]:
    """Keyword arguments of `plot` for the line of a domain, or class: colour and dash by its place, ID thicker."""
    colour, dash = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
    return {"label": f"{name} (ID)" if is_id else name, "color": colour, "ls": (0, dash), "lw": 3 if is_id else 1.7}


def use_style() -> None:
    """Set the look of every figure: white ground (readable on dark pages too), no frame at the top and right."""
    sns.set_theme(style="ticks", palette=list(COLOURS))
    plt.style.use([STYLES / "frame.mplstyle", STYLES / "figure.mplstyle"])


def save_figure(figure: Figure, name: str, folder: StrPath, alt: str) -> None:
    """Write `folder`/`name`.svg and .png, with `alt` as the description that screen readers read."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    figure.savefig(path / f"{name}.svg", metadata={"Date": None, "Description": alt})
    figure.savefig(path / f"{name}.png", metadata={"Description": alt, "Software": None})


def show_images(images: ImageSet, classes: Sequence[str]) -> Figure:
    """A row of images for each domain, one class a column where the domain has it."""
    domains, table = images.domains, images.table
    size, bare = (1.05 * len(classes) + 0.9, 1.05 * len(domains)), {"xticks": [], "yticks": [], "frame_on": False}
    figure, axes = plt.subplots(len(domains), len(classes), figsize=size, squeeze=False, subplot_kw=bare)
    for line, domain in zip(axes, domains, strict=True):
        label = f"{domain}\n(ID)" if domain == images.id_domain else domain
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=10)
        for axis, name in zip(line, classes, strict=True):
            rows = np.flatnonzero((table["domain"] == domain) & (table["class"] == name))
            if len(rows):
                axis.imshow(images.image(int(rows[0])))
    for axis, name in zip(axes[0], classes, strict=True):
        axis.set_title(name, fontsize=9, fontweight="normal", loc="center")
    figure.tight_layout(h_pad=0.3, w_pad=0.3)
    return figure


def plot_trade_off(axis: Axes, curves: pd.DataFrame) -> None:
    """ID against OOD accuracy along α: a line a method, the mean over seeds, each seed as a faint line.

    Filled is α = 0.5, open α = 1. The columns of `curves` are method, seed, alpha, id, ood (percent), as `summarize`
    makes them.
    """
    for place, (method, own) in enumerate(curves.groupby("method", sort=False)):
        style = look(str(method), 8)
        colour = style["color"]
        for _, one in own.groupby("seed"):
            axis.plot(one["id"], one["ood"], color=colour, alpha=0.25, lw=1)
        mean = own.groupby("alpha")[["id", "ood"]].mean()
        half, dash = [alpha == 0.5 for alpha in mean.index], (0, DASHES[place % len(DASHES)])
        axis.plot(mean["id"], mean["ood"], lw=2, ls=dash, markevery=half, label=method, **style)
        axis.plot(*mean.iloc[-1], **style | {"mfc": "white", "mec": colour, "mew": 1.5})
    start = curves[curves["alpha"] == 0][["id", "ood"]].mean()
    axis.plot(start["id"], start["ood"], ls="", label="zero-shot (α = 0)", **look("zero-shot", 10))
    axis.set(xlabel="ID accuracy (%)", ylabel="mean OOD accuracy (%)")
    axis.legend(loc="lower right", title="filled: α = 0.5, open: α = 1")


def plot_story(images: ImageSet, curves: pd.DataFrame, columns: int = 6) -> Figure:
    """Some images of ID on the left and of OOD on the right, over the accuracy along α of `plot_trade_off`'s curves."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 5.6), height_ratios=(1, 1.5))
    rng, table = np.random.default_rng(1), images.table
    rows = {domain: np.flatnonzero(table["domain"] == domain) for domain in images.domains}
    mixed = np.array([rng.choice(rows[images.ood_domains[k % len(images.ood_domains)]]) for k in range(2 * columns)])
    own = rng.choice(rows[images.id_domain], 2 * columns)
    sides = (("id", f"ID: {images.id_domain}", own), ("ood", "OOD: never tuned on", mixed))
    for (ground, axis), (column, title, drawn) in zip(axes.T, sides, strict=True):
        tiles = [np.asarray(ImageOps.expand(images.image(int(row)).resize((96, 96)), 3, "white")) for row in drawn]
        ground.imshow(np.vstack([np.hstack(tiles[:columns]), np.hstack(tiles[columns:])]))
        ground.set_axis_off()
        ground.set_title(title)
        for dash, (method, of_method) in zip(DASHES, curves.groupby("method", sort=False), strict=False):
            mean = of_method.groupby("alpha")[column].mean()
            axis.plot(mean.index, mean, lw=2.5, ls=(0, dash), label=method, **look(str(method), 7))
        start = curves[curves["alpha"] == 0][column].mean()
        axis.axhline(start, color=METHOD_COLOURS["zero-shot"], ls="--", lw=1.2, label="zero-shot")
        axis.set(xlabel="α (0 zero-shot, 1 tuned)", ylabel="accuracy (%)")
    axes[1, 0].legend(loc="lower right")
    figure.tight_layout()
    return figure


def plot_along_alpha(axis: Axes, sweep: pd.DataFrame, id_domain: str, metric: str = "accuracy") -> None:
    """A metric against α, a line a domain; the ID domain is drawn thicker."""
    for place, (domain, own) in enumerate(sweep.groupby("domain", sort=False)):
        mean = own.groupby("alpha")[metric].agg(["mean", "min", "max"])
        style = line_look(place, str(domain), domain == id_domain)
        axis.plot(mean.index, mean["mean"], marker="o", ms=4, **style)
        axis.fill_between(mean.index, mean["min"], mean["max"], color=style["color"], alpha=0.12, lw=0)
    axis.set(xlabel="α (0 zero-shot, 1 tuned)", ylabel=f"{metric} (%)", xlim=(-0.02, 1.02))
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def plot_few_shot(axis: Axes, table: pd.DataFrame, column: str, zero_shot: float) -> None:
    """Accuracy against shots with 95% intervals: columns method, shots, `column` and `column`_ci."""
    axis.axhline(zero_shot, color=METHOD_COLOURS["zero-shot"], ls="--", lw=1.2, label="zero-shot")
    for offset, (method, own) in zip((0.97, 1.03), table.groupby("method", sort=False), strict=False):
        style = look(str(method), 7) | {"capsize": 3, "lw": 2, "label": method}
        axis.errorbar(own["shots"] * offset, own[column], own[f"{column}_ci"], **style)
    axis.set_xscale("log", base=2)
    shots = sorted(table["shots"].unique())
    axis.set_xticks(shots, [str(n) for n in shots])
    axis.set(xlabel="shots per class")


def plot_calibration(answers: pd.DataFrame) -> Figure:
    """The calibration error along α, and reliability diagrams of ID and OOD, without bins of fewer than 10 images."""
    sides = list(answers.groupby("is_id"))[::-1]
    figure, (first, *others) = plt.subplots(1, 1 + len(sides), figsize=(4.4 * (1 + len(sides)), 4), layout="tight")
    errors = calibration(answers).replace({"is_id": {True: "ID", False: "mean of OOD"}})
    look: dict[str, Any] = {"markers": True, "errorbar": None, "lw": 2, "ms": 7}
    sns.lineplot(errors, x="alpha", y="error", hue="is_id", style="is_id", ax=first, **look)
    first.set(title="Lower is better", xlabel="α (0 zero-shot, 1 tuned)", ylabel="calibration error (%)", ylim=0)
    first.legend()
    shown = np.quantile(answers["alpha"].unique(), (0, 0.5, 1), method="nearest")
    for axis, (is_id, own) in zip(others, sides, strict=True):
        bins = reliability(own[own["alpha"].isin(shown)], ["alpha"]).query("images >= 10")
        name = bins["alpha"].map("α = {:g}".format)
        axis.plot([0, 100], [0, 100], color=COLOURS[6], lw=1, label="as sure as right")
        sns.lineplot(bins, x="confidence", y="accuracy", hue=name, style=name, ax=axis, **look)
        title = f"{'ID' if is_id else 'OOD'}: below the line, too sure"
        axis.set(title=title, xlabel="confidence (%)", ylabel="accuracy (%)")
        axis.legend()
    return figure


def plot_class_changes(answers: pd.DataFrame, most: int = 8) -> Figure:
    """The classes that win and that lose most from zero-shot to the largest α, ID and OOD, at most `most` of each."""
    sides = list(class_changes(answers).groupby("is_id"))[::-1]
    figure, axes = plt.subplots(1, len(sides), figsize=(5.6 * len(sides), 5.4), squeeze=False, layout="tight")
    for axis, (is_id, own) in zip(axes[0], sides, strict=True):
        won, lost = own[own["change"] > 0], own[own["change"] < 0]
        ends = pd.concat([won[:most], lost[-most:]])[::-1]
        axis.barh(ends["class"], ends["change"], color=[COLOURS[points < 0] for points in ends["change"]])
        axis.set_title(f"{'ID' if is_id else 'OOD'}: {len(won)} of {len(own)} classes won, {len(lost)} lost")
        axis.set_xlabel("change of accuracy (points)")
    return figure
