"""The α slider, and the map of the encoders' two α; while they move, nothing is encoded or drawn, only interpolated.

And `move`, for any picture that follows sliders: its frames are drawn beforehand, and a move only shows another one.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from itertools import product
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.core.pylabtools import print_figure
from IPython.display import HTML, display
from matplotlib.figure import Figure
from torch import Tensor

from radapter_lite.alpha_curve import AlphaCurve
from radapter_lite.assets import filled
from radapter_lite.data import ImageSet
from radapter_lite.progress import progress
from radapter_lite.statistics import summarize
from radapter_lite.tasks import Task, as_task
from radapter_lite.view.comparison_plots import MAP_TITLES, plot_map
from radapter_lite.view.guesses import NOBODY
from radapter_lite.view.pictures import Chart, Line, Thumbnails
from radapter_lite.view.plots import line_look, look

STOPS = tuple(np.round(np.linspace(0, 1, 101), 2).tolist())  # of every slider
EXAMPLES = 8  # images whose probabilities are shown
ALONG_ALPHA: dict[str, Any] = {"xlabel": "α (0 zero-shot, 1 tuned)", "xlim": (-0.02, 1.02)}
GALLERY = 22  # images that change their class, at most
STRIP = 5  # frames, at most, where no kernel runs


class AlphaSlider(widgets.VBox):
    """A slider over α with a play button; what it shows follows the mouse, the arrow keys and the button.

    Above, the score along α of every domain, and ID against OOD for all methods, with the current point. In the middle,
    examples with their three most probable texts. Below, how many images have another answer than at zero-shot, and
    some of them. A menu chooses the method that is shown. The curves, by the method's name, were measured on these
    images, or on the task over them. Raises ValueError without a curve, or for a curve of another number of images.

    `slider`, `play`, `method` are its controls; `picture` follows them. `examples` are the rows of the middle's images.
    """

    def __init__(self, curves: Mapping[str, AlphaCurve], images: ImageSet | Task) -> None:
        if not curves:
            raise ValueError("the slider needs a curve: give {name: AlphaCurve.measure(backbone, delta, images)}")
        task = as_task(images)
        for name, curve in curves.items():
            _check(name, curve, task.images)
        images, self._names = task.images, task.names
        self._ways = {name: _Way(name, place, curve, task) for place, (name, curve) in enumerate(curves.items())}
        right = next(iter(self._ways.values())).right
        turned = (right[0] != right[-1]).numpy()  # right or wrong by tuning; other images where there are too few
        order = np.random.default_rng(0).permutation(len(turned))
        self.examples = sorted([*order[turned[order]].tolist(), *order[~turned[order]].tolist()][:EXAMPLES])
        self._examples = {
            name: replace(curve, image=replace(curve.image, values=curve.image.values[:, self.examples]))
            for name, curve in curves.items()
        }
        shown = sorted({*self.examples, *(row for way in self._ways.values() for row in way.gallery)})
        thumbnails = Thumbnails(images.image(row) for row in shown)
        every = torch.arange(len(task.names))[:, None].expand(-1, len(shown))
        fits = task.on(images.take(shown)).right(every)  # (T, shown)
        fitting = [{self._names[text] for text in own.nonzero()} for own in fits.T]
        table = images.table[["class", "domain"]].rename(columns={"class": "truth"})
        about = table.iloc[shown].assign(picture=thumbnails.names, right=fitting).to_dict("records")
        self._images = dict(zip(shown, about, strict=True))
        self._trade_off = None
        if images.ood_domains:
            lines, of = [way.trade_off for way in self._ways.values()], f"{task.metric} (%)"
            self._trade_off = Chart.of_lines(lines, title="The trade-off", xlabel=f"ID {of}", ylabel=f"mean OOD {of}")

        self.slider = alpha_control("α")
        self.play = play_button(self.slider)
        self.method = widgets.Dropdown(options=list(curves), description="method", layout={"width": "240px"})
        self.picture = widgets.HTML()
        for control in (self.slider, self.method):
            control.observe(lambda change: self._show(), names="value")
        self._show()
        controls = [self.play, self.slider, *([self.method] if len(curves) > 1 else [])]
        charts = [*(way.chart for way in self._ways.values()), self._trade_off]
        styles = thumbnails.style + "".join(chart.style for chart in charts if chart)
        super().__init__([widgets.HBox(controls), widgets.HTML(styles), self.picture])

    def benchmark(self, moves: int = 50) -> list[float]:
        """Milliseconds of each of `moves` moves to other stops; the slider ends where it was."""
        slider, began, times = self.slider, self.slider.value, []
        rng = np.random.default_rng(0)
        with slider.hold_sync():  # the page's echoes of passing values would arrive after the last one
            for _ in range(moves):
                stop = float(rng.choice([other for other in STOPS if other != slider.value]))
                start = time.perf_counter()
                slider.value = stop
                times.append(1000 * (time.perf_counter() - start))
            slider.value = began
        return times

    def _show(self) -> None:
        alpha, way = round(self.slider.value, 2), self._ways[self.method.value]
        stop, probabilities = STOPS.index(alpha), self._examples[self.method.value].probabilities(alpha)
        before, now = way.tops[0], way.tops[stop]
        changed = now != before
        likely = [likeliest(100 * own, self._names) for own in probabilities]
        examples = [(self._images[row], texts) for row, texts in zip(self.examples, likely, strict=True)]
        flips = [(self._images[row], *(self._names[int(tops[row])] for tops in (before, now))) for row in way.gallery]
        gained, lost = (int((changed & right).sum()) for right in (way.right[stop], way.right[0]))
        counts = {"total": len(now), "changed": int(changed.sum()), "gained": gained, "lost": lost}
        shown = {"way": way, "trade_off": self._trade_off, "examples": examples, "flips": flips}
        self.picture.value = filled("widgets/slider.html", alpha=alpha, stop=stop, **counts, **shown)


class _Way:
    """One method's way along α: what can be known of it before the slider moves."""

    def __init__(self, name: str, place: int, curve: AlphaCurve, task: Task) -> None:
        images, tops, tables = task.images, [], []
        for alpha in progress(STOPS, f"stops of {name}"):
            similarities = curve.at(alpha)
            tops.append(similarities.argmax(1))
            tables.append(task.score(similarities).assign(alpha=alpha))
        self.tops = torch.stack(tops)  # (stops, N)
        self.right = task.right(self.tops)  # (stops, N)
        table = pd.concat(tables)
        scores = table.pivot(index="alpha", columns="domain", values=task.metric)
        lines = [
            Line(STOPS, scores[domain].tolist(), line_look(number, domain, domain == images.id_domain))
            for number, domain in enumerate(images.domains)
        ]
        self.chart = Chart.of_lines(lines, **ALONG_ALPHA | {"title": name, "ylabel": f"{task.metric} (%)"})
        means = summarize(table, ["alpha"], task.metric)
        style = line_look(place, name) | {"color": look(name)["color"]}
        self.trade_off = Line(means["id"].tolist(), means["ood"].tolist(), style)
        changed = self.tops != self.tops[0]
        first = changed.int().argmax(0)
        order = np.random.default_rng(1).permutation(np.flatnonzero(changed.any(0)))[:GALLERY]
        self.gallery = sorted(order.tolist(), key=lambda row: (int(first[row]), row))  # the first to change first


class EncoderMap(widgets.VBox):
    """Maps of ID, OOD and their mean over the image encoder's α and the text encoder's, with a slider for each.

    The dashed diagonal is the α slider's path, the star each map's highest value. The curve was measured on these
    images, or their task; a slider has `steps` stops. Raises ValueError for another number of images, or no OOD domain.

    `image` and `text` are its sliders; `table` is the map as numbers.
    """

    def __init__(self, curve: AlphaCurve, images: ImageSet | Task, steps: int = 21) -> None:
        task, own = as_task(images), as_task(images).images
        _check("the map", curve, own)
        if not own.ood_domains:
            raise ValueError(f"{own.name} has no OOD domain to draw a map of; it has {', '.join(own.domains)}")
        self.table = curve.encoder_map(task, np.linspace(0, 1, steps).tolist())
        self._maps = {name: Chart(partial(plot_map, table=self.table, column=name), (320, 270)) for name in MAP_TITLES}
        self.image, self.text = alpha_control("α image", steps), alpha_control("α text", steps)
        self.picture = widgets.HTML()
        for slider in (self.image, self.text):
            slider.observe(lambda change: self._show(), names="value")
        self._show()
        styles = "".join(chart.style for chart in self._maps.values())
        super().__init__([widgets.HBox([self.image, self.text]), widgets.HTML(styles), self.picture])

    def _show(self) -> None:
        image, text = self.image.value, self.text.value
        near = abs(self.table["image_alpha"] - image) + abs(self.table["text_alpha"] - text)
        here = self.table.loc[near.idxmin()]
        self.picture.value = filled("widgets/map.html", charts=self._maps, image=image, text=text, here=here)


def alpha_slider(curves: Mapping[str, AlphaCurve], images: ImageSet | Task) -> AlphaSlider:
    """The slider over α of the curves of one method or several, by name, over the images they were measured on."""
    return AlphaSlider(curves, images)


def encoder_map(curve: AlphaCurve, images: ImageSet | Task, steps: int = 21) -> EncoderMap:
    """The maps of ID, OOD and their mean over both encoders' α, each slider of `steps` stops."""
    return EncoderMap(curve, images, steps)


def likeliest(percent: Tensor, texts: Sequence[str]) -> list[tuple[str, float]]:
    """The likeliest three texts of one image and their probabilities, from those of all texts [T], in percent."""
    values, order = percent.topk(min(3, len(texts)))
    return [(texts[text], value) for text, value in zip(order.tolist(), values.tolist(), strict=True)]


def play_button(slider: widgets.FloatSlider) -> widgets.Play:
    """A button that moves a slider of α from where it stands to 1."""
    play = widgets.Play(min=0, max=100, step=2, interval=120, value=round(100 * slider.value))
    steps = (lambda step: step / 100, lambda alpha: round(100 * alpha))
    widgets.link((play, "value"), (slider, "value"), transform=steps)
    return play


def _check(name: str, curve: AlphaCurve, images: ImageSet) -> None:
    if (rows := curve.image.values.shape[1]) != len(images):
        told = f"the curve of {name} is of {rows} images and not of these {len(images)}"
        raise ValueError(f"{told}: give the images it was measured on")


def alpha_control(description: str, stops: int = len(STOPS), width: str = "400px") -> widgets.FloatSlider:
    """A slider from 0 to 1 that stands at a half."""
    step, layout = 1 / (stops - 1), {"width": width}
    return widgets.FloatSlider(0.5, min=0, max=1, step=step, description=description, layout=layout)


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
    shown = [values[place] for place in np.linspace(0, len(values) - 1, min(STRIP, len(values))).round().astype(int)]
    frames = [(_text(value), html_of(draw(**{name: value}, **still))) for value in shown]
    display(HTML(filled("widgets/strip.html", name=name.replace("_", " "), frames=frames)))


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
