"""Masks over pictures: a colour and an outline for each class, and its name where it lies."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image

from radapter_lite.view.plots import COLOURS

COVER = 0.5  # how much of the picture a colour covers


def colours(labels: np.ndarray) -> dict[int, str]:
    """A colour for each class that masks [..., H, W] have, by number; from the eighth on they come again."""
    return {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(np.unique(labels[labels >= 0]).tolist())}


def overlay(image: np.ndarray, labels: np.ndarray, hues: Mapping[int, str] | None = None) -> Image.Image:
    """The picture [H, W, 3] under its mask [H, W], classes outlined. Raises ValueError for a mask of another size."""
    from skimage.segmentation import find_boundaries

    if labels.shape != image.shape[:2]:
        raise ValueError(f"the mask has {labels.shape} pixels and the picture {image.shape[:2]}: give one of its size")
    shown, edge = image.astype(float), find_boundaries(labels, mode="inner", background=-1)
    for label, hue in (hues or colours(labels)).items():
        own, ink = labels == label, 255 * np.array(to_rgb(hue))
        shown[own] += COVER * (ink - shown[own])
        shown[own & edge] = ink
    return Image.fromarray(shown.round().astype(np.uint8))


def plot_overlay(
    axis: Axes, image: np.ndarray, labels: np.ndarray, names: Sequence[str], truth: np.ndarray | None = None
) -> dict[str, float]:
    """Draw the overlay with each class's name on it; with the truth [H, W], ✓ or ✗ before it, in the truth's colours.

    Returns each name's share of the picture in percent, which the axis has for a legend too, the largest first.
    """
    known = colours(labels if truth is None else truth)
    hues, shares = {label: known.get(label, COLOURS[-1]) for label in colours(labels)}, {}
    axis.imshow(overlay(image, labels, hues))
    axis.set_axis_off()
    for label in sorted(hues, key=lambda label: -(labels == label).sum()):
        rows, columns = np.nonzero(labels == label)
        shares[names[label]] = share = 100 * len(rows) / labels.size
        mark = "" if truth is None else "✓ " if (truth[rows, columns] == label).mean() > 0.5 else "✗ "
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": hues[label], "linewidth": 1.5}
        axis.text(columns.mean(), rows.mean(), mark + names[label], fontsize=7, ha="center", va="center", bbox=box)
        axis.plot([], [], "s", ms=10, color=hues[label], label=f"{names[label]}, {share:.1f}%")
    return shares
