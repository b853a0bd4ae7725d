"""Charts that matplotlib draws once, and points on them that are written anew at every move of a slider."""

import base64
import hashlib
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from radapter_lite.view.plots import FRAME

SIZE = (300, 260)  # of a chart, in pixels
# Over matplotlib's own style, whatever the notebook's is.
STYLE = FRAME | {
    "font.size": 11,
    "text.parse_math": False,  # a name may have dollar signs
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "svg.fonttype": "none",  # text as text, in half the bytes
}


@dataclass(frozen=True)
class Line:
    """A line of a chart: its points, and its look as `plots.line_look` tells it."""

    x: Sequence[float]
    y: Sequence[float]
    look: Mapping[str, Any]


class Chart:
    """A chart that matplotlib draws once, which is the background of the points that move.

    `style` is the drawing as a style sheet, to be sent once before what `show` gives. `draw` draws on the axes that it
    is given, which stay linear; their title is what screen readers say. The size is in pixels.
    """

    def __init__(self, draw: Callable[[Axes], None], size: tuple[int, int] = SIZE) -> None:
        with matplotlib.style.context(["default", STYLE]):
            width, height = size
            figure = Figure((width / 72, height / 72), dpi=72, layout="constrained")  # a point is a pixel
            axes = figure.add_subplot()
            draw(axes)
            file = io.BytesIO()
            figure.savefig(file, format="svg", metadata={"Date": None})
        name, rule = background(file.getvalue(), "svg+xml")
        self.style, self._height = f"<style>{rule}</style>", height
        self._to_pixels = axes.transData.get_affine().get_matrix()[:2].tolist()
        self._ends = f'y1="{height - axes.bbox.y0:.1f}" y2="{height - axes.bbox.y1:.1f}"'
        self._head = (
            f'<svg class="{name}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{html.escape(axes.get_title(loc="left"))}" stroke="#222">'
        )

    @classmethod
    def of_lines(cls, lines: Iterable[Line], size: tuple[int, int] = SIZE, **about: Any) -> "Chart":
        """A chart of lines; `about` is what `Axes.set` takes, such as title, xlabel and xlim."""

        def draw(axes: Axes) -> None:
            for line in lines:
                axes.plot(line.x, line.y, **line.look)
            axes.grid(axis="y")
            axes.set(**about)

        return cls(draw, size)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies, in pixels from the left and from the top."""
        (wide, _, left), (_, high, bottom) = self._to_pixels
        return left + wide * x, self._height - bottom - high * y

    def show(self, points: Iterable[tuple[float, float, str]], rule: float | None = None) -> str:
        """The SVG of points (x, y, colour) over the drawing, and of a vertical rule at an x."""
        moving = []
        if rule is not None:
            x, _ = self.place(rule, 0)
            moving.append(f'<line x1="{x:.1f}" x2="{x:.1f}" {self._ends} stroke-dasharray="3 3"/>')
        for x, y, colour in points:
            x, y = self.place(x, y)
            moving.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" fill="{colour}" stroke-width="1.5"/>')
        return f"{self._head}{''.join(moving)}</svg>"


def _sample(line: Line) -> str:
    width, (_, dashes) = line.look["lw"], line.look["ls"]
    return (
        f'<svg width="30" height="10" aria-hidden="true"><line x2="30" y1="5" y2="5" stroke="{line.look["color"]}" '
        f'stroke-width="{width}" stroke-dasharray="{" ".join(f"{width * dash:g}" for dash in dashes)}"/></svg>'
    )


def names(lines: Iterable[Line]) -> str:
    """The names of lines in a row, each beside a sample of it."""
    items = (f"<span>{_sample(line)} {html.escape(line.look['label'])}</span>" for line in lines)
    style = "display:flex;flex-wrap:wrap;gap:2px 14px;max-width:256px;margin-left:44px"
    return f'<div style="{style}">{"".join(items)}</div>'


def legend(title: str, rows: Iterable[tuple[Line, float, float]]) -> str:
    """A live legend: each line's name, its value in percent where the point stands, and the change from zero-shot."""
    cells = []
    for line, value, change in rows:
        weight = "bold" if line.look["lw"] > 2 else "normal"
        cells.append(
            f'<tr style="background:#fff;font-weight:{weight}"><td style="padding:1px 6px 1px 0">{_sample(line)}</td>'
            f'<td style="text-align:left;padding:1px 8px 1px 0">{html.escape(line.look["label"])}</td>'
            f'<td style="text-align:right">{value:.1f}%</td>'
            f'<td style="text-align:right;padding-left:8px;color:#555">{change:+.1f}</td></tr>'
        )
    head = f'<div style="font-size:20px;font-weight:bold;margin-top:8px">{html.escape(title)}</div>'
    foot = '<div style="color:#555;font-size:11px;margin-top:4px">right: points from zero-shot</div>'
    return f'{head}<table style="color:#222;border:0;font-size:13px;margin:6px 0 0">{"".join(cells)}</table>{foot}'


def background(content: bytes, kind: str) -> tuple[str, str]:
    """The class whose elements have a picture behind them, and its CSS rule; kind is "jpeg" or "svg+xml"."""
    name = f"picture-{hashlib.sha256(content).hexdigest()[:12]}"
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return name, f".{name}{{background:url({uri}) center/contain no-repeat}}"
