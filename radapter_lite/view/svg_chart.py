"""Charts in SVG whose lines are drawn once, and points on them that are written anew at every move of a slider."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image

DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 4", "1 4")  # lines are told apart without colour too
MARGINS = (46, 12, 24, 40)  # of a chart, in pixels: left, right, top, bottom


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name, its colour and its points."""

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    width: float = 1.8
    dash: str = ""


class Chart:
    """A chart in SVG whose lines are drawn once; `show` adds what moves.

    Args:
        title, x_label, y_label: what it says; `title` is also its description for screen readers.
        x_range, y_range: the ends of the axes; those of the lines if left out.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        title: str,
        x_label: str,
        y_label: str,
        x_range: tuple[float, float] | None = None,
        y_range: tuple[float, float] | None = None,
        size: tuple[int, int] = (300, 260),
    ) -> None:
        self.size, self.title = size, html.escape(title)
        self._x_range = x_range or _padded(np.concatenate([line.x for line in lines]))
        self._y_range = y_range or _padded(np.concatenate([line.y for line in lines]))
        self._ground = "".join([self._axes(x_label, y_label), *(self._line(line) for line in lines)])

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies, in pixels from the left and from the top."""
        left, right, top, bottom = MARGINS
        across = (x - self._x_range[0]) / (self._x_range[1] - self._x_range[0])
        up = (y - self._y_range[0]) / (self._y_range[1] - self._y_range[0])
        width, height = self.size
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    def show(self, points: Iterable[tuple[float, float, str]], rule: float | None = None) -> str:
        """The SVG with points (x, y, colour), and a vertical rule at an x."""
        moving = []
        if rule is not None:
            (x, low), (_, high) = self.place(rule, self._y_range[0]), self.place(rule, self._y_range[1])
            moving.append(_stroke(x, low, x, high, "#222", 'stroke-dasharray="3 3"'))
        for x, y, colour in points:
            at_x, at_y = self.place(x, y)
            moving.append(
                f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="5.5" fill="{colour}" stroke="#222" stroke-width="1.5"/>'
            )
        width, height = self.size
        return (
            f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{self.title}" font-size="11" fill="#222">{self._ground}{"".join(moving)}</svg>'
        )

    def _line(self, line: Line) -> str:
        points = " ".join(
            "{:.1f},{:.1f}".format(*self.place(x, y)) for x, y in zip(line.x, line.y, strict=True)
        )
        return (
            f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="{line.width}" '
            f'stroke-dasharray="{line.dash}"><title>{html.escape(line.name)}</title></polyline>'
        )

    def _axes(self, x_label: str, y_label: str) -> str:
        width, height = self.size
        left, right, top, bottom = MARGINS
        upright = f'transform="translate(12 {(top + height - bottom) / 2}) rotate(-90)"'
        parts = [
            _text(left, 14, self.title, "start", 'font-weight="bold"'),
            _text((left + width - right) / 2, height - 6, html.escape(x_label)),
            _text(0, 0, html.escape(y_label), extra=upright),
        ]
        for tick in _ticks(self._y_range):
            x, y = self.place(self._x_range[0], tick)
            parts += [_stroke(x, y, width - right, y, "#e4e4e4"), _text(x - 5, y + 4, f"{tick:g}", "end")]
        for tick in _ticks(self._x_range):
            x, y = self.place(tick, self._y_range[0])
            parts += [_stroke(x, y, x, y + 4, "#888"), _text(x, y + 16, f"{tick:g}")]
        x, y = self.place(self._x_range[0], self._y_range[0])
        return "".join([*parts, _stroke(x, y, width - right, y, "#888"), _stroke(x, y, x, top, "#888")])


class HeatMap(Chart):
    """A chart of the two encoders' α with a value for each pair, the path of one α for both drawn in it.

    Args:
        values: [text α, image α], on a regular and square grid from 0 to 1.
    """

    def __init__(self, values: np.ndarray, title: str, size: tuple[int, int] = (270, 280)) -> None:
        path = Line("one α for both encoders", "#fff", (0.0, 1.0), (0.0, 1.0), 2, "5 4")
        self.values = values
        labels = ("α of the image encoder", "α of the text encoder")
        half = 0.5 / (len(values) - 1)  # a cell is around its point
        ends = (-half, 1 + half)
        super().__init__([path], title, *labels, x_range=ends, y_range=ends, size=size)

    def say(self, image_alpha: float, text_alpha: float) -> str:
        """The value at the nearest point of the grid, above the map's scale from the lowest to the highest."""
        last_row, last_column = (count - 1 for count in self.values.shape)
        value = self.values[round(text_alpha * last_row), round(image_alpha * last_column)]
        colours = [
            matplotlib.colors.to_hex(matplotlib.colormaps["cividis"](share)) for share in (0.0, 0.5, 1.0)
        ]
        bar = f"background:linear-gradient(90deg,{','.join(colours)});height:9px;flex:1"
        return (
            f'<div style="width:{self.size[0]}px"><b>{value:.1f}% here</b><div style="display:flex;gap:6px;'
            f'align-items:center;font-size:11px;color:#555">{self.values.min():.1f}<div style="{bar}"></div>'
            f"{self.values.max():.1f}</div></div>"
        )

    def _axes(self, x_label: str, y_label: str) -> str:
        low, high = float(self.values.min()), float(self.values.max())
        shares = (self.values - low) / max(high - low, 1e-9)
        pixels = (matplotlib.colormaps["cividis"](shares[::-1])[..., :3] * 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        (left, bottom), (right, top) = (self.place(end, end) for end in self._x_range)
        address = data_uri(buffer.getvalue(), "png")
        picture = (
            f'<image x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" '
            f'preserveAspectRatio="none" style="image-rendering:pixelated" href="{address}"/>'
        )
        row, column = np.unravel_index(int(self.values.argmax()), self.values.shape)
        best_x, best_y = self.place(column / (len(self.values[0]) - 1), row / (len(self.values) - 1))
        star = _text(best_x, best_y + 7, "★", extra='font-size="20" stroke="#fff" stroke-width="0.8"')
        return super()._axes(x_label, y_label) + picture + star


def _padded(values: np.ndarray) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    pad = 0.06 * (high - low) or 1.0
    return low - pad, high + pad


def _ticks(ends: tuple[float, float]) -> list[float]:
    return [tick for tick in MaxNLocator(5).tick_values(*ends) if ends[0] <= tick <= ends[1]]


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, extra: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {extra}/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{text}</text>'


def _sample(line: Line) -> str:
    return (
        f'<svg width="30" height="10" aria-hidden="true"><line x1="0" y1="5" x2="30" y2="5" stroke="{line.colour}" '
        f'stroke-width="{line.width}" stroke-dasharray="{line.dash}"/></svg>'
    )


def names(lines: Iterable[Line]) -> str:
    """The names of lines in a row, each beside a sample of it."""
    items = (f"<span>{_sample(line)} {html.escape(line.name)}</span>" for line in lines)
    style = "display:flex;flex-wrap:wrap;gap:2px 14px;max-width:256px;margin-left:44px"
    return f'<div style="{style}">{"".join(items)}</div>'


def legend(title: str, rows: Iterable[tuple[Line, float, float]]) -> str:
    """A live legend: each line's name, its value in percent where the point stands, and the change from zero-shot."""
    cells = []
    for line, value, change in rows:
        sample = _sample(line)
        weight = "bold" if line.width > 2 else "normal"
        cells.append(
            f'<tr style="background:#fff;font-weight:{weight}"><td style="padding:1px 6px 1px 0">{sample}</td>'
            f'<td style="text-align:left;padding:1px 8px 1px 0">{html.escape(line.name)}</td>'
            f'<td style="text-align:right">{value:.1f}%</td>'
            f'<td style="text-align:right;padding-left:8px;color:#555">{change:+.1f}</td></tr>'
        )
    head = f'<div style="font-size:20px;font-weight:bold;margin-top:8px">{html.escape(title)}</div>'
    foot = '<div style="color:#555;font-size:11px;margin-top:4px">right: points from zero-shot</div>'
    return f'{head}<table style="color:#222;border:0;font-size:13px;margin:6px 0 0">{"".join(cells)}</table>{foot}'


def data_uri(content: bytes, kind: str) -> str:
    """An image file's bytes as an address that HTML can hold; kind is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
