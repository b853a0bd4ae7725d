"""The α slider: where the model stands between zero-shot and tuned, and what it says of a few images there."""

import io
from collections.abc import Mapping

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import Tensor

from radapter_lite import plots
from radapter_lite.backbones import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.evaluation import predict, summarize


def alpha_slider(
    backbone: Backbone,
    delta: Delta,
    curves: pd.DataFrame,
    sweep: pd.DataFrame,
    examples: ImageSet,
) -> widgets.VBox:
    """A slider over the swept values of α, a play button, and two pictures that follow it.

    On the left the trade-off between ID and OOD with the current point, on the right the top class of each
    example image and whether it is right. All frames are drawn before the slider is shown, so that moving it
    only changes which one is seen.

    Args:
        curves: of all methods, as `plot_trade_off` takes them.
        sweep: of `delta`, as `evaluation.sweep` makes it; its values of α are the slider's.
        examples: a handful of images, at most 8.
    """
    points = summarize(sweep, ["alpha"])
    frames = {}
    for row in points.itertuples():
        with delta.applied(backbone.model, row.alpha):
            similarities = predict(backbone, examples)
        frames[row.alpha] = _frame(row._asdict(), curves, examples, similarities)

    picture = widgets.Image(value=frames[points["alpha"].iloc[0]], format="png", width=980)
    slider = widgets.SelectionSlider(
        options=[(f"{alpha:.2f}", alpha) for alpha in points["alpha"]],
        description="α",
        continuous_update=True,
        layout=widgets.Layout(width="520px"),
    )
    play = widgets.Play(min=0, max=len(points) - 1, interval=450)
    widgets.jslink((play, "value"), (slider, "index"))
    numbers = widgets.HTML()

    def show(change: Mapping) -> None:
        alpha = change["new"]
        picture.value = frames[alpha]
        now = points[points["alpha"] == alpha].iloc[0]
        numbers.value = f"<b>ID {now['id']:.1f}%</b> &nbsp; <b>OOD {now['ood']:.1f}%</b>"

    slider.observe(show, names="value")
    show({"new": slider.value})
    return widgets.VBox([widgets.HBox([play, slider, numbers]), picture])


def _frame(point: dict, curves: pd.DataFrame, examples: ImageSet, similarities: Tensor) -> bytes:
    """One PNG: the trade-off with a ring around the current point, and the examples with their top class."""
    figure = plt.figure(figsize=(11, 4.2), dpi=90)
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 1.1))
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axis = left.subplots()
    plots.plot_trade_off(axis, curves)
    axis.plot(point["id"], point["ood"], "o", ms=16, mfc="none", mec="black", mew=2)
    axis.set_title(f"α = {point['alpha']:.2f}")
    top = similarities.argmax(1)
    cells = right.subplots(2, -(-len(examples) // 2), squeeze=False)
    for i, cell in enumerate(np.ravel(cells)):
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set_visible(False)
        if i < len(examples):
            correct = top[i] == examples.labels[i]
            cell.imshow(examples.image(i))
            cell.set_title(
                f"{'✓' if correct else '✗'} {examples.classes[top[i]]}",
                fontsize=10,
                loc="center",
                fontweight="normal",
                color=plots.COLOURS[0] if correct else plots.COLOURS[1],
            )
            cell.set_xlabel(examples.table["domain"].iloc[i], fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches=None)
    plt.close(figure)
    return buffer.getvalue()
