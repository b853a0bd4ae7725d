"""A picture that follows sliders: every frame is drawn beforehand, so that a move only shows another one."""

import os
from collections.abc import Callable, Sequence
from html import escape
from itertools import product
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
from IPython.core.pylabtools import print_figure
from IPython.display import HTML, display
from matplotlib.figure import Figure

from radapter_lite.progress import progress
from radapter_lite.view.guesses import NOBODY

STRIP = 5  # frames, at most, where no kernel runs


class Moving(widgets.VBox):
    """A slider for each keyword, over the values that are given for it, and under them what `draw` makes of these.

    `draw` takes the same keywords and returns a matplotlib figure, or HTML. Sliders follow mouse and arrow keys, and
    stand in the middle at first. `controls` are the sliders by name, `picture` what follows them.
    """

    def __init__(self, draw: Callable[..., Figure | str], **stops: Sequence[Any]) -> None:
        self.controls = {
            name: widgets.SelectionSlider(
                options=[(_text(value), value) for value in values],
                value=values[len(values) // 2],
                description=name.replace("_", " "),
                layout={"width": "400px"},
            )
            for name, values in stops.items()
        }
        settings = [*product(*stops.values())]
        self._frames = {each: html_of(draw(**dict(zip(stops, each, strict=True)))) for each in progress(settings)}
        self.picture = widgets.HTML()
        for control in self.controls.values():
            control.observe(lambda change: self._show(), names="value")
        self._show()
        super().__init__([*self.controls.values(), self.picture])

    def _show(self) -> None:
        self.picture.value = self._frames[tuple(control.value for control in self.controls.values())]


def move(draw: Callable[..., Figure | str], **stops: Sequence[Any]) -> None:
    """Show `Moving`; where no kernel will answer, a strip of its frames along the first slider."""
    if NOBODY not in os.environ:
        display(Moving(draw, **stops))
        return
    (name, values), *others = stops.items()
    still = {other: own[len(own) // 2] for other, own in others}
    count = min(STRIP, len(values))
    shown = [values[round(place * (len(values) - 1) / max(count - 1, 1))] for place in range(count)]
    label = escape(name.replace("_", " "))
    frames = [
        f'<figure style="margin:0"><figcaption>{label} = {escape(_text(value))}</figcaption>'
        f"{html_of(draw(**{name: value}, **still))}</figure>"
        for value in shown
    ]
    grid = "display:grid;gap:8px;grid-template-columns:repeat(auto-fill,minmax(250px,1fr))"
    display(HTML(f'<div style="{grid}">{"".join(frames)}</div>'))


def html_of(picture: Figure | str) -> str:
    """A figure as an image in HTML, its title said to screen readers; HTML as it is."""
    if isinstance(picture, str):
        return picture
    content = print_figure(picture, base64=True, dpi=80, bbox_inches=None)
    plt.close(picture)
    title = next((axes.get_title(loc="left") or axes.get_title() for axes in picture.axes), "")
    return f'<img alt="{escape(title)}" style="max-width:100%" src="data:image/png;base64,{content}">'


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
