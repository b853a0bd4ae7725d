"""The HTML that the widgets show: small enough to be written anew at every move of a slider.

Everything stands on its own white ground, so that it reads the same on light and on dark pages.
"""

import html
import io
from collections.abc import Collection, Iterable, Sequence

from PIL import Image
from torch import Tensor

from radapter_lite.view.plots import COLOURS
from radapter_lite.view.svg_chart import background

_ONE_LINE = "white-space:nowrap;overflow:hidden;text-overflow:ellipsis"
RIGHT, WRONG, GREY = COLOURS[0], COLOURS[1], COLOURS[6]
_CARD = (
    "background:#fff;color:#222;border:1px solid #ccc;border-radius:8px;padding:10px 14px;"
    "font:13px/1.35 system-ui,sans-serif;display:flex;flex-wrap:wrap;gap:10px 18px;align-items:flex-start"
)
SMALL = 46  # the side of a thumbnail in a row, in pixels


def card(*parts: str) -> str:
    """Parts side by side on white, wrapped where the page is narrow."""
    return f'<div style="{_CARD}">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def row(parts: Iterable[str]) -> str:
    """Small parts close together."""
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px;max-width:640px">{"".join(parts)}</div>'


class Thumbnails:
    """Small copies of images, sent once as a style sheet; HTML that names them by class stays small."""

    def __init__(self, images: Iterable[Image.Image], side: int = 64) -> None:
        self.side, self.names, rules = side, [], {}
        for image in images:
            small = image.convert("RGB")
            small.thumbnail((side, side))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=85)
            name, rules[name] = background(buffer.getvalue(), "jpeg")
            self.names.append(name)
        self.style = f"<style>{''.join(rules.values())}</style>"

    def show(self, number: int, alt: str, side: int | None = None) -> str:
        """The HTML of one of them, in its own size or in another."""
        side = side or self.side
        return (
            f'<div class="{self.names[number]}" role="img" aria-label="{html.escape(alt)}" '
            f'style="width:{side}px;height:{side}px"></div>'
        )


def top_bars(probabilities: Tensor, texts: Sequence[str], truth: Collection[str] = ()) -> str:
    """The likeliest three texts of one image as bars; the first is marked ✓ or ✗ where the right ones are known.

    Probabilities are those of the texts for the image [T].
    """
    values, order = probabilities.topk(min(3, len(texts)))
    rows = []
    for place, (value, label) in enumerate(zip(values.tolist(), order.tolist(), strict=True)):
        name = texts[label]
        mark = "" if not truth or place else ("✓ " if name in truth else "✗ ")
        colour = RIGHT if not truth or name in truth else (GREY if place else WRONG)
        rows.append(
            f'<div style="font-size:12px;font-weight:{"normal" if place else "bold"};{_ONE_LINE}" '
            f'title="{html.escape(name)}">{mark}{html.escape(name)} '
            f'<span style="color:#555;font-weight:normal">{100 * value:.0f}%</span></div>'
            f'<div style="background:#eee;height:5px;margin-bottom:2px">'
            f'<div style="background:{colour};height:5px;width:{100 * value:.1f}%"></div></div>'
        )
    return "".join(rows)


def example(thumbnail: str, bars: str, about: str) -> str:
    """An image with what it is above it and its bars at its side."""
    return (
        f'<div style="width:212px"><div style="color:#555;font-size:12px">{html.escape(about)}</div>'
        f'<div style="display:flex;gap:8px">{thumbnail}<div style="width:138px">{bars}</div></div></div>'
    )


def count_flips(images: int, changed: int, gained: int, lost: int) -> str:
    """How many images have another class than at zero-shot, and to what end."""
    return (
        f'<div style="width:212px"><b style="font-size:20px">{changed}</b> of {images} images have another class '
        f'than at zero-shot:<br><b style="color:{RIGHT}">✓ {gained}</b> became right, '
        f'<b style="color:{WRONG}">✗ {lost}</b> became wrong, {changed - gained - lost} were and are wrong.</div>'
    )


def flip(picture: str, before: str, now: str, truth: str, right: bool) -> str:
    """An image that changes its class along α: faded while it has its first one, ringed once it has another."""
    changed = now != before
    ring = (RIGHT if right else WRONG) if changed else "#ccc"
    mark = ("✓ " if right else "✗ ") if changed else ""
    return (
        f'<div style="width:{SMALL + 6}px;font-size:11px" title="{html.escape(f"{truth}: {before} → {now}")}">'
        f'<div style="border:3px solid {ring};opacity:{1 if changed else 0.35}">{picture}</div>'
        f'<div style="{_ONE_LINE}">{html.escape(mark + now)}</div></div>'
    )
