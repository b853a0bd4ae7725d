"""Pictures that pages are sent once, as style sheets that templates name: thumbnails, and charts below moving dots."""

import base64
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D
from PIL import Image

from radapter_lite.assets import STYLES, filled

SIZE = (300, 260)  # of a chart, in pixels
STYLE = ("default", STYLES / "frame.mplstyle", STYLES / "chart.mplstyle")  # whatever the notebook's is


class Thumbnails:
    """Small copies of images. `names` are their classes, and `style` is the style sheet."""

    def __init__(self, images: Iterable[Image.Image], side: int = 64) -> None:
        self.names, rules = [], {}
        for image in images:
            small = image.convert("RGB")
            small.thumbnail((side, side))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=85)
            name, rules[name] = _background(buffer.getvalue(), "jpeg")
            self.names.append(name)
        self.style = f"<style>{''.join(rules.values())}</style>"


@dataclass(frozen=True)
class Line:
    """A line of a chart: its points, and its look as `plots.line_look` tells it."""

    x: Sequence[float]
    y: Sequence[float]
    look: Mapping[str, Any]


class Chart:
    """A chart that matplotlib draws once, which is the background of the points that move.

    `style` is the drawing as a style sheet. `draw` draws on the axes that it is given, which stay linear; their title
    is what screen readers say. The size, width and height, is in pixels; `at` shows points of the lines.
    """

    def __init__(self, draw: Callable[[Axes], None], size: tuple[int, int] = SIZE, lines: Sequence[Line] = ()) -> None:
        self.lines, (self.width, self.height) = lines, size
        with matplotlib.style.context(STYLE):
            figure = Figure((self.width / 72, self.height / 72), dpi=72, layout="constrained")  # a point is a pixel
            axes = figure.add_subplot()
            draw(axes)
            file = io.BytesIO()
            figure.savefig(file, format="svg", metadata={"Date": None})
        self.name, rule = _background(file.getvalue(), "svg+xml")
        self.style, self.title = f"<style>{rule}</style>", axes.get_title(loc="left")
        self.ends = self.height - axes.bbox.y0, self.height - axes.bbox.y1  # of a vertical rule
        self._to_pixels = Affine2D(axes.transData.get_affine().get_matrix())

    @classmethod
    def of_lines(cls, lines: Sequence[Line], size: tuple[int, int] = SIZE, **about: Any) -> "Chart":
        """A chart of lines; `about` is what `Axes.set` takes, such as title, xlabel and xlim."""

        def draw(axes: Axes) -> None:
            for line in lines:
                axes.plot(line.x, line.y, **line.look)
            axes.grid(axis="y")
            axes.set(**about)

        return cls(draw, size, lines)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies, in pixels from the left and from the top."""
        across, up = self._to_pixels.transform((x, y))
        return across, self.height - up

    def show(self, points: Iterable[tuple[float, float, str]], rule: float | None = None) -> str:
        """The SVG of points (x, y, colour) over the drawing, and of a vertical rule at an x."""
        places = [(*self.place(x, y), colour) for x, y, colour in points]
        across = None if rule is None else self.place(rule, 0)[0]
        return filled("widgets/chart.svg", chart=self, points=places, rule=across)

    def at(self, stop: int, rule: float | None = None) -> str:
        """The same of each line's point number `stop`."""
        return self.show(((line.x[stop], line.y[stop], line.look["color"]) for line in self.lines), rule)


def _background(content: bytes, kind: str) -> tuple[str, str]:
    """The class whose elements have a picture behind them, and its CSS rule; kind is "jpeg" or "svg+xml"."""
    name = f"picture-{hashlib.sha256(content).hexdigest()[:12]}"
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return name, f".{name}{{background:url({uri}) center/contain no-repeat}}"
