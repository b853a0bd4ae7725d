"""Figures of calibration along α, and of the classes that tuning wins and loses."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from radapter_lite.calibration import calibration, reliability
from radapter_lite.view.plots import COLOURS

SIDES = {True: "ID", False: "OOD"}


def plot_calibration(answers: pd.DataFrame) -> Figure:
    """The calibration error along α, and reliability diagrams of ID and OOD; bins of fewer than 10 images are left out."""
    sides = [is_id for is_id in SIDES if is_id in set(answers["is_id"])]
    figure, axes = plt.subplots(1, 1 + len(sides), figsize=(4.4 * (1 + len(sides)), 4))
    errors = calibration(answers).replace({"is_id": {True: "ID", False: "mean of OOD"}})
    look = {"markers": True, "errorbar": None, "lw": 2, "ms": 7}
    sns.lineplot(errors, x="alpha", y="error", hue="is_id", style="is_id", ax=axes[0], **look)
    axes[0].set(
        title="Lower is better", xlabel="α (0 zero-shot, 1 tuned)", ylabel="calibration error (%)", ylim=(0, None)
    )
    axes[0].legend()
    shown = np.quantile(answers["alpha"].unique(), (0, 0.5, 1), method="nearest")
    for axis, is_id in zip(axes[1:], sides, strict=True):
        bins = reliability(answers[(answers["is_id"] == is_id) & answers["alpha"].isin(shown)], ["alpha"])
        bins = bins[bins["images"] >= 10].assign(alpha=bins["alpha"].map("α = {:g}".format))
        axis.plot([0, 100], [0, 100], color=COLOURS[6], lw=1, label="as sure as right")
        sns.lineplot(bins, x="confidence", y="accuracy", hue="alpha", style="alpha", ax=axis, **look)
        axis.set(title=f"{SIDES[is_id]}: below the line, too sure", xlabel="confidence (%)", ylabel="accuracy (%)")
        axis.legend()
    figure.tight_layout()
    return figure


def plot_class_changes(changes: pd.DataFrame, most: int = 8) -> Figure:
    """The classes that win and that lose most of `class_changes`, ID and OOD, at most `most` of each."""
    sides = [is_id for is_id in SIDES if is_id in set(changes["is_id"])]
    figure, axes = plt.subplots(1, len(sides), figsize=(5.6 * len(sides), 0.55 * most + 1), squeeze=False)
    for axis, is_id in zip(axes[0], sides, strict=True):
        own = changes[changes["is_id"] == is_id]
        won, lost = own[own["change"] > 0], own[own["change"] < 0]
        ends = pd.concat([won[:most], lost[-most:]])
        axis.barh(ends["class"], ends["change"], color=[COLOURS[points < 0] for points in ends["change"]])
        axis.invert_yaxis()
        axis.set_xlabel("change of accuracy (points)")
        axis.set_title(f"{SIDES[is_id]}: {len(won)} of {len(own)} classes won, {len(lost)} lost")
    figure.tight_layout()
    return figure
