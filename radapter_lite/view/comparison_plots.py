"""Figures that compare methods or variants over seeds, each with its 95% intervals."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from radapter_lite.statistics import mean_and_interval
from radapter_lite.view.plots import COLOURS, METHOD_MARKERS, look


def plot_methods(axis: Axes, by_seed: pd.DataFrame, x: str = "id", y: str = "ood") -> None:
    """Two accuracies of many methods: a line along α for those that have one, a point for the others.

    Filled markers are the means over seeds at α = 0.5, open ones at α = 1, or of the point, with 95% intervals.
    Columns of `by_seed` are method, seed, alpha (1 for a point), x and y (percent).
    """
    for method, own in by_seed.groupby("method", sort=False):
        mean = mean_and_interval(own, ["alpha"], (x, y)).sort_values("alpha")
        axis.plot(mean[x], mean[y], color=look(str(method))["color"], lw=1.4, alpha=0.8, marker=".", ms=4, zorder=2)
        for row in mean[mean["alpha"].isin((0.5, 1))].to_dict("records"):
            style = look(str(method), is_open=row["alpha"] == 1) | {"elinewidth": 0.8, "zorder": 3}
            axis.errorbar(row[x], row[y], xerr=row[f"{x}_ci"], yerr=row[f"{y}_ci"], **style)
    axis.set(xlabel="ID accuracy (%)", ylabel="mean OOD accuracy (%)")


def method_legend(figure: Figure, methods: Iterable[str]) -> None:
    """A legend below the figure: what filled and open markers are, and every method's, family after family."""
    given = dict.fromkeys(methods)
    ordered = [name for name in dict.fromkeys([*METHOD_MARKERS, *given]) if name in given]
    handles = [Line2D([], [], ls="", label=name, **look(name, 8)) for name in ordered]
    for is_open, name in enumerate(("filled: α = 0.5", "open: α = 1, or no α")):
        handles.append(Line2D([], [], ls="", label=name, **look("zero-shot", 8, bool(is_open)) | {"marker": "o"}))
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=6, fontsize=10)


def plot_ranking(axis: Axes, table: pd.DataFrame, column: str) -> None:
    """A value of each method at α = 1 with its 95% interval, sorted: columns method, `column` and `column`_ci."""
    axis.axvline(0, color=COLOURS[6], lw=1)
    for _, row in table.sort_values(column).iterrows():
        style = look(row["method"], 8, row["method"] != "zero-shot") | {"capsize": 3}
        axis.errorbar(row[column], row["method"], xerr=row[f"{column}_ci"], **style)
    axis.set_ylim(-0.7, len(table) - 0.3)


def plot_forest(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """Differences with 95% intervals, a row a label under its group's name; two panels of one y, for ID and OOD.

    Columns are group, label, series, id, id_ci, ood and ood_ci; the first series is filled, the second hollow.
    """
    groups = table.groupby("group", sort=False)["label"].unique()
    rows = [(group, label) for group, labels in groups.items() for label in ("", *labels)]  # "" is the group's own
    heights = {row: height for height, row in enumerate(rows)}
    series = table.groupby("series", sort=False)
    for axis, column in zip(axes, ("id", "ood"), strict=True):
        axis.axvline(0, color=COLOURS[6], lw=1)
        for place, (name, own) in enumerate(series):
            shift = 0.32 * (place - (len(series) - 1) / 2)
            y = [heights[key] + shift for key in zip(own["group"], own["label"], strict=True)]
            marker = {"color": COLOURS[5], "mfc": "white"} if place else {"color": COLOURS[0]}
            style: dict[str, Any] = marker | {"fmt": "o", "ms": 6, "capsize": 2.5, "lw": 1.3, "label": name}
            axis.errorbar(own[column], y, xerr=own[f"{column}_ci"], **style)
        axis.grid(axis="y", lw=0.4, color="#dddddd")
    axes[0].set_yticks(range(len(rows)), [label or group for group, label in rows])
    for tick, (_, label) in zip(axes[0].get_yticklabels(), rows, strict=True):
        tick.set_fontweight("normal" if label else "bold")
    axes[0].set_ylim(len(rows) - 0.4, -0.6)


MAP_TITLES = {"id": "ID accuracy (%)", "ood": "mean OOD accuracy (%)", "mean": "mean of ID and OOD (%)"}


def plot_map(axis: Axes, table: pd.DataFrame, column: str) -> None:
    """One panel of `plot_encoder_map`, without a legend."""
    grid = table.pivot(index="text_alpha", columns="image_alpha", values=column)
    half = 0.5 / (len(grid) - 1)  # a cell is around its point
    ends = (-half, 1 + half, -half, 1 + half)
    image = axis.imshow(grid, cmap="cividis", origin="lower", extent=ends, interpolation="none")
    axis.figure.colorbar(image, ax=axis, fraction=0.046)
    axis.plot([0, 1], [0, 1], color="black", lw=3.2)
    axis.plot([0, 1], [0, 1], color="white", ls="--", lw=2, label="one α for both")
    best = table.loc[table[column].idxmax(), ["image_alpha", "text_alpha"]]
    axis.plot(*best, "*", ms=16, color="white", mec="black", clip_on=False, zorder=3, label="the highest")
    axis.set(xlabel="α of the image encoder", ylabel="α of the text encoder", title=MAP_TITLES[column])


def plot_encoder_map(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """Accuracy over the image encoder's α and the text encoder's: a panel each for ID, OOD and their mean.

    The dashed diagonal is one α for both, the star the highest. The table is `AlphaCurve.encoder_map`'s, in even steps.
    """
    for axis, column in zip(axes, MAP_TITLES, strict=True):
        plot_map(axis, table, column)
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
    axes[1].legend(frameon=True, facecolor="black", labelcolor="white", **below)


def plot_layer_profile(axes: Sequence[Axes], profile: pd.DataFrame) -> None:
    """Points of accuracy that each layer changes, from `layer_profile`: two panels of one y, for image and text."""
    table = profile.rename(columns={"id_change": "ID", "ood_change": "mean OOD"}).set_index("layer")
    for axis, tower in zip(axes, ("image", "text"), strict=True):
        own = table.loc[table["tower"] == tower, ["ID", "mean OOD"]]
        own.plot.bar(ax=axis, width=0.8, rot=0, color=COLOURS[:2], legend=False)
        axis.axhline(0, color=COLOURS[6], lw=1)
        axis.set_xlabel(f"layer of the {tower} encoder")


def plot_rules(axis: Axes, table: pd.DataFrame, most: float = float("inf")) -> None:
    """Points that each rule for α leaves on the table, by method: columns method, rule (in order), left and left_ci.

    Of rules that leave more than `most` the numbers stand at the edge.
    """
    rules, methods = list(table["rule"].unique()), table.groupby("method", sort=False)
    axis.axvline(0, color=COLOURS[6], lw=1)
    for place, (method, own) in enumerate(methods):
        heights = [-rules.index(rule) - 0.24 * (place - (len(methods) - 1) / 2) for rule in own["rule"]]
        axis.errorbar(own["left"], heights, xerr=own["left_ci"], ls="", capsize=3, label=method, **look(str(method), 7))
        for height, left in zip(heights, own["left"], strict=True):
            if left > most:
                edge = {"ha": "right", "va": "center", "size": 8, "color": look(str(method))["color"]}
                axis.text(most, height, f"{left:.1f} →", edge)
    axis.set_yticks([-place for place in range(len(rules))], rules)
    axis.set(xlabel="points below the oracle")
    axis.set_xlim(right=min(most, axis.get_xlim()[1]))


def plot_speed(ratios: pd.DataFrame) -> Figure:
    """R-Adapter's costs in percent of its peers', as `bench.speed.speed_ratios` gives them: medians and ranges."""
    ordered = ratios.sort_values("percent", ascending=False, ignore_index=True)
    figure, axis = plt.subplots(figsize=(8, 3.6))
    axis.axvline(100, color=COLOURS[6], lw=1)
    ends = [ordered["percent"] - ordered["lowest"], ordered["highest"] - ordered["percent"]]
    axis.errorbar(ordered["percent"], ordered.index, xerr=ends, ls="", capsize=3, **look("R-Adapter", 8))
    for place, percent in ordered["percent"].items():
        axis.annotate(f"{percent:.3g}", (percent, place), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    axis.set_yticks(ordered.index, [f"{row.measure}: {row.peer}" for row in ordered.itertuples()])
    axis.set(xlabel="R-Adapter's cost in percent of the peer's", xlim=(0, 110))
    return figure
