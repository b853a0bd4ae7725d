"""The figures that notebooks and figures/ share: one style, colours that the colour-blind can tell apart."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from radapter_lite.data import ImageSet
from radapter_lite.evaluation import mean_and_interval

# Okabe and Ito's palette, in an order that keeps neighbours apart in grey too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# The hue says what kind of method it is, the marker which one.
FAMILIES: dict[str, tuple[str, dict[str, str]]] = {
    "R-Adapter": (COLOURS[0], {"R-Adapter": "o", "R-Adapter, rank 4": "P", "R-Adapter, unwhitened": "v"}),
    "all weights": (COLOURS[1], {"FLYP": "D", "WiSE-FT": "s", "fine-tuning": "s", "LP-FT": "^"}),
    "few weights": (COLOURS[2], {"LoRA": "^", "linear adapter": "p"}),
    "non-linear adapters": (COLOURS[3], {"Houlsby adapter": "<", "AdaptFormer": ">"}),
    "heads and caches": (
        COLOURS[4],
        {"linear probe": "h", "CLIP-Adapter": "d", "Tip-Adapter": "*", "Tip-Adapter-F": "H"},
    ),
    "prompts": (COLOURS[5], {"CoOp": "8", "prefix tuning": "X", "P-tuning": "o"}),
    "no tuning": (COLOURS[6], {"zero-shot": "X"}),
}
METHOD_COLOURS = {method: colour for colour, markers in FAMILIES.values() for method in markers}
METHOD_MARKERS = {method: marker for _, markers in FAMILIES.values() for method, marker in markers.items()}


def use_style() -> None:
    """Set the look of every figure: white ground (readable on dark pages too), no frame at the top and right."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette=list(COLOURS),
        rc={
            "figure.facecolor": "white",
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "savefig.bbox": "tight",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 12,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "legend.frameon": False,
            "svg.hashsalt": "radapter-lite",  # the same figure gives the same file
        },
    )


def save_figure(figure: Figure, name: str, folder: str | os.PathLike[str], alt: str) -> None:
    """Write `folder`/`name`.svg and .png, with `alt` as the description that screen readers read."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    figure.savefig(path / f"{name}.svg", metadata={"Date": None, "Description": alt})
    figure.savefig(path / f"{name}.png", metadata={"Description": alt, "Software": None})


def show_images(
    images: ImageSet, per_domain: int = 8, classes: Sequence[str] | None = None, seed: int = 0
) -> Figure:
    """A row of images for each domain, one class a column where the domain has it."""
    chosen = list(classes or np.random.default_rng(seed).permutation(images.classes)[:per_domain])
    domains = images.domains
    figure, axes = plt.subplots(
        len(domains), len(chosen), figsize=(1.05 * len(chosen) + 0.9, 1.05 * len(domains)), squeeze=False
    )
    table = images.table
    for y, domain in enumerate(domains):
        for x, name in enumerate(chosen):
            axis = axes[y, x]
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            rows = np.flatnonzero((table["domain"] == domain) & (table["class"] == name))
            if len(rows):
                axis.imshow(images.image(int(rows[seed % len(rows)])))
            if y == 0:
                axis.set_title(name, fontsize=9, fontweight="normal", loc="center")
            if x == 0:
                label = f"{domain}\n(ID)" if domain == images.id_domain else domain
                axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=10)
    figure.tight_layout(h_pad=0.3, w_pad=0.3)
    return figure


def plot_trade_off(axis: Axes, curves: pd.DataFrame, zero_shot: Mapping[str, float] | None = None) -> None:
    """ID against OOD accuracy along α: a line a method, the mean over seeds, each seed as a faint line.

    Args:
        curves: columns method, seed, alpha, id, ood (percent), as `summarize` makes them.
        zero_shot: its id and ood, drawn as a cross; the curves' own α = 0 if left out.
    """
    for place, (method, own) in enumerate(curves.groupby("method", sort=False)):
        colour, marker = METHOD_COLOURS[str(method)], METHOD_MARKERS[str(method)]
        for _, one in own.groupby("seed"):
            axis.plot(one["id"], one["ood"], color=colour, alpha=0.25, lw=1)
        mean = own.groupby("alpha")[["id", "ood"]].mean()
        axis.plot(mean["id"], mean["ood"], color=colour, lw=2, marker=marker, ms=5, label=method)
        axis.annotate(
            "α = 1",
            (mean["id"].iloc[-1], mean["ood"].iloc[-1]),
            xytext=(8, 2 - 14 * place),  # one below the other, should two curves end together
            textcoords="offset points",
            color=colour,
            fontsize=9,
        )
    start = zero_shot or curves[curves["alpha"] == 0][["id", "ood"]].mean()
    axis.plot(
        start["id"], start["ood"], "X", color=METHOD_COLOURS["zero-shot"], ms=10, label="zero-shot (α = 0)"
    )
    axis.set(xlabel="ID accuracy (%)", ylabel="mean OOD accuracy (%)")
    axis.legend(loc="lower right")


def plot_along_alpha(axis: Axes, sweep: pd.DataFrame, id_domain: str) -> None:
    """Accuracy against α, a line a domain; the ID domain is drawn thicker."""
    for i, (domain, own) in enumerate(sweep.groupby("domain", sort=False)):
        mean = own.groupby("alpha")["accuracy"].agg(["mean", "min", "max"])
        is_id = domain == id_domain
        axis.plot(
            mean.index,
            mean["mean"],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            ms=4,
            lw=3 if is_id else 1.5,
            label=f"{domain} (ID)" if is_id else domain,
        )
        axis.fill_between(
            mean.index, mean["min"], mean["max"], color=COLOURS[i % len(COLOURS)], alpha=0.12, lw=0
        )
    axis.set(xlabel="α (0 zero-shot, 1 tuned)", ylabel="accuracy (%)", xlim=(-0.02, 1.02))
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def plot_few_shot(axis: Axes, table: pd.DataFrame, column: str, zero_shot: float) -> None:
    """Accuracy against shots with 95% intervals: columns method, shots, `column` and `column`_ci."""
    axis.axhline(zero_shot, color=METHOD_COLOURS["zero-shot"], ls="--", lw=1.2, label="zero-shot")
    for offset, (method, own) in zip((0.97, 1.03), table.groupby("method", sort=False), strict=False):
        axis.errorbar(
            own["shots"] * offset,
            own[column],
            yerr=own[f"{column}_ci"],
            color=METHOD_COLOURS[str(method)],
            marker=METHOD_MARKERS[str(method)],
            capsize=3,
            lw=2,
            label=method,
        )
    axis.set_xscale("log", base=2)
    shots = sorted(table["shots"].unique())
    axis.set_xticks(shots, [str(n) for n in shots])
    axis.set(xlabel="shots per class")


def plot_concept_frequency(axis: Axes, accuracies: pd.DataFrame) -> None:
    """Accuracy of each class against its number of pretraining pictograms: columns pictograms, accuracy."""
    mean = accuracies.groupby("pictograms")["accuracy"].mean()
    jitter = np.random.default_rng(0).uniform(0.9, 1.1, len(accuracies))
    axis.scatter(
        accuracies["pictograms"] * jitter, accuracies["accuracy"], color=COLOURS[5], s=18, label="a class"
    )
    axis.plot(mean.index, mean, color=COLOURS[0], marker="o", lw=2, label="mean")
    axis.set_xscale("log", base=2)
    axis.set_xticks(mean.index, [str(n) for n in mean.index])
    axis.set(xlabel="pictograms of the class in pretraining", ylabel="accuracy (%)", ylim=(-3, 103))
    axis.legend(loc="lower right")


def plot_methods(axis: Axes, by_seed: pd.DataFrame) -> None:
    """ID against OOD accuracy of many methods: a line along α for those that have one, a point for the others.

    The large marker is the mean over seeds at α = 1, or of the point, with 95% intervals.

    Args:
        by_seed: columns method, seed, alpha (1 for a point), id, ood (percent).
    """
    for method, own in by_seed.groupby("method", sort=False):
        colour = METHOD_COLOURS[str(method)]
        mean = mean_and_interval(own, ["alpha"]).sort_values("alpha")
        axis.plot(mean["id"], mean["ood"], color=colour, lw=1.4, alpha=0.8, marker=".", ms=4, zorder=2)
        end = mean.iloc[-1]
        axis.errorbar(
            end["id"],
            end["ood"],
            xerr=end["id_ci"],
            yerr=end["ood_ci"],
            color=colour,
            marker=METHOD_MARKERS[str(method)],
            ms=9,
            mec="white",
            mew=0.8,
            elinewidth=0.8,
            zorder=3,
        )
    axis.set(xlabel="ID accuracy (%)", ylabel="mean OOD accuracy (%)")


def method_legend(figure: Figure, methods: Iterable[str], columns: int = 6) -> None:
    """A legend below the figure: colour and marker of every method, family after family."""
    known = list(methods)
    handles = [
        Line2D([], [], ls="", color=METHOD_COLOURS[name], marker=marker, ms=8, mec="white", label=name)
        for name, marker in METHOD_MARKERS.items()
        if name in known
    ]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns, fontsize=10)


def plot_ranking(axis: Axes, table: pd.DataFrame, column: str) -> None:
    """A value of each method with its 95% interval, sorted: columns method, `column` and `column`_ci."""
    ordered = table.sort_values(column).reset_index(drop=True)
    axis.axvline(0, color=COLOURS[6], lw=1)
    for y, row in ordered.iterrows():
        name = str(row["method"])
        axis.errorbar(
            row[column],
            y,
            xerr=row[f"{column}_ci"],
            color=METHOD_COLOURS[name],
            marker=METHOD_MARKERS[name],
            ms=8,
            mec="white",
            capsize=3,
        )
    axis.set_yticks(range(len(ordered)), ordered["method"])
    axis.set_ylim(-0.7, len(ordered) - 0.3)


def plot_forest(axes: Sequence[Axes], table: pd.DataFrame, columns: Sequence[str] = ("id", "ood")) -> None:
    """Differences with 95% intervals, a row a label under its group's name, a panel a column.

    Args:
        axes: as many as columns; they should share their y.
        table: columns group, label, series, and `column` and `column`_ci for each. The first series is filled, the
            second hollow.
    """
    heights: dict[tuple[str, str], int] = {}
    ticks: list[tuple[int, str, bool]] = []
    for group, own in table.groupby("group", sort=False):
        ticks.append((len(ticks), str(group), True))
        for label in own["label"].unique():
            heights[group, label] = len(ticks)
            ticks.append((len(ticks), str(label), False))
    series = list(table["series"].unique())
    for axis, column in zip(axes, columns, strict=True):
        axis.axvline(0, color=COLOURS[6], lw=1)
        for place, name in enumerate(series):
            own = table[table["series"] == name]
            shift = 0.32 * (place - (len(series) - 1) / 2)
            axis.errorbar(
                own[column],
                [heights[key] + shift for key in zip(own["group"], own["label"], strict=True)],
                xerr=own[f"{column}_ci"],
                ls="",
                marker="o",
                ms=6,
                mfc="white" if place else COLOURS[0],
                color=COLOURS[5] if place else COLOURS[0],
                capsize=2.5,
                lw=1.3,
                label=name,
            )
        axis.grid(axis="y", lw=0.4, color="#dddddd")
    axes[0].set_yticks([y for y, _, _ in ticks], [text for _, text, _ in ticks])
    for tick, (_, _, is_group) in zip(axes[0].get_yticklabels(), ticks, strict=True):
        tick.set_fontweight("bold" if is_group else "normal")
    axes[0].set_ylim(len(ticks) - 0.4, -0.6)


def plot_encoder_map(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """Accuracy over the image encoder's α and the text encoder's: a panel each for ID, OOD and their mean.

    The dashed diagonal is one α for both, the star the highest value.

    Args:
        axes: three.
        table: columns image_alpha, text_alpha (a full grid), id, ood and mean, as `AlphaCurve.encoder_map` makes it.
    """
    titles = {"id": "ID accuracy (%)", "ood": "mean OOD accuracy (%)", "mean": "mean of ID and OOD (%)"}
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        grid = table.pivot(index="text_alpha", columns="image_alpha", values=column)
        mesh = axis.pcolormesh(
            grid.columns, grid.index, grid, cmap="cividis", shading="nearest", rasterized=True
        )
        axis.figure.colorbar(mesh, ax=axis, fraction=0.046)
        axis.plot([0, 1], [0, 1], color="white", ls="--", lw=2)
        best = table.loc[table[column].idxmax()]
        axis.plot(best["image_alpha"], best["text_alpha"], "*", ms=16, color="white", mec="black")
        axis.set(xlabel="α of the image encoder", ylabel="α of the text encoder", title=title, aspect="equal")


def plot_layer_profile(axes: Sequence[Axes], profile: pd.DataFrame) -> None:
    """What each layer changes in points of ID and OOD accuracy, a panel for each encoder.

    Args:
        axes: two, for the image and the text encoder; they should share their y.
        profile: as `alpha_curve.layer_profile` makes it.
    """
    for axis, tower in zip(axes, ("image", "text"), strict=True):
        own = profile[profile["tower"] == tower]
        for shift, column, colour in ((-0.2, "id_change", COLOURS[0]), (0.2, "ood_change", COLOURS[1])):
            label = {"id_change": "ID", "ood_change": "mean OOD"}[column]
            axis.bar(own["layer"] + shift, own[column], 0.4, color=colour, label=label)
        axis.axhline(0, color=COLOURS[6], lw=1)
        axis.set(xlabel=f"layer of the {tower} encoder", xticks=own["layer"])


def plot_rules(axis: Axes, table: pd.DataFrame) -> None:
    """How many points each rule for α leaves on the table, with 95% intervals; a marker for each method.

    Args:
        table: columns method, rule, left and left_ci; the rules are drawn in the order they come in.
    """
    rules = list(dict.fromkeys(table["rule"]))
    methods = list(dict.fromkeys(table["method"]))
    axis.axvline(0, color=COLOURS[6], lw=1)
    for place, method in enumerate(methods):
        own = table[table["method"] == method]
        heights = [-rules.index(rule) - 0.24 * (place - (len(methods) - 1) / 2) for rule in own["rule"]]
        colour, marker = METHOD_COLOURS[method], METHOD_MARKERS[method]
        axis.errorbar(
            own["left"],
            heights,
            xerr=own["left_ci"],
            ls="",
            color=colour,
            marker=marker,
            capsize=3,
            label=method,
        )
    axis.set_yticks([-place for place in range(len(rules))], rules)
    axis.set(xlabel="points below the oracle")
    axis.legend(loc="best")
