"""The book's α slider: every frame computed beforehand, so that it moves without a kernel.

The accuracies are the saved results' means over seeds, on a straight line between the values of α that were measured.
The images are a demonstration delta's, at every step.
"""

import html
import io
import json
from dataclasses import dataclass
from string import Template
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from radapter_lite.alpha_curve import AlphaCurve
from radapter_lite.assets import BOOK, DEMO_DELTA
from radapter_lite.backbone import load_clip
from radapter_lite.bench import load_results
from radapter_lite.data import ImageSet, load_images
from radapter_lite.delta import Delta
from radapter_lite.statistics import summarize
from radapter_lite.view.plots import COLOURS, line_look, look
from radapter_lite.view.svg_chart import Chart, Line, data_uri, names

PAGE = BOOK / "slider.html"
SCRIPT = PAGE.with_name("slider.js")
STEPS = 101
ALPHAS = np.linspace(0, 1, STEPS)
# The methods drawn, with their names on the way along α.
METHODS = {"R-Adapter": "R-Adapter", "FLYP": "WiSE-FT over FLYP"}
POOL, SHOWN, TOP = 24, 2, 3  # images looked at and shown of each domain, classes shown of each image
RIGHT, WRONG = COLOURS[0], COLOURS[1]
SIZE = (340, 260)  # of a chart, in pixels


def slider_body() -> str:
    """The page of the slider: text, charts, images, and the script that moves them.

    Raises FileNotFoundError or ValueError, where the saved results or the delta are missing or damaged.
    """
    results = load_results()
    shots = int(results["shots"].max())
    rows = results.query("split == 'test' and shots == @shots").dropna(subset="alpha")
    numbers, charts = _curves(rows)
    images, examples = _examples()
    frames = {
        "steps": STEPS,
        "right": RIGHT,
        "wrong": WRONG,
        "classes": images.classes,
        "numbers": numbers,
        "charts": [chart.frames for chart in charts],
        "examples": examples,
    }
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        shots=shots,
        id_domain=html.escape(images.id_domain),
        last=STEPS - 1,
        charts="".join(chart.html for chart in charts),
        seeds=rows["seed"].nunique(),
        measured=", ".join(f"{alpha:g}" for alpha in sorted(rows["alpha"].unique())),
        cards="".join(_card(images, number) for number in range(len(images))),
        frames=json.dumps(frames, separators=(",", ":")).replace("<", "\\u003c"),
        script=SCRIPT.read_text(encoding="utf-8"),
    )


@dataclass(frozen=True)
class _Moving:
    """A chart as HTML, and where its points and its rule stand at every step."""

    html: str
    frames: dict[str, Any]


def _curves(rows: pd.DataFrame) -> tuple[dict[str, list[float]], list[_Moving]]:
    """The numbers at every step by the id of the element that shows them, and the two charts."""
    own = rows[rows["method"] == "R-Adapter"]
    domains = own.groupby(["domain", "alpha"], sort=False)["accuracy"].mean().unstack(0)[own["domain"].unique()]
    is_id = own.groupby("domain")["is_id"].first()
    lines = [
        Line(domains.index.tolist(), domains[domain].tolist(), line_look(number, str(domain), is_id[domain]))
        for number, domain in enumerate(domains)
    ]
    along = Chart.of_lines(lines, SIZE, title="Every domain along α", xlabel="α", ylabel="accuracy (%)", xlim=(0, 1))
    points = [[along.place(alpha, _at(line, alpha)) for alpha in ALPHAS] for line in lines]
    rule = [along.place(alpha, lines[0].y[0])[0] for alpha in ALPHAS]

    curves = summarize(rows, ["method", "seed", "alpha"]).groupby(["method", "alpha"])[["id", "ood"]].mean()
    shown = [method for method in METHODS if method in curves.index]
    paths = [curves.loc[method] for method in shown]
    ways = [
        Line(
            path["id"].tolist(),
            path["ood"].tolist(),
            line_look(number, METHODS[method]) | {"color": look(method)["color"]},
        )
        for number, (method, path) in enumerate(zip(shown, paths, strict=True))
    ]
    trade = Chart.of_lines(ways, SIZE, title="ID against OOD", xlabel="ID accuracy (%)", ylabel="mean OOD accuracy (%)")
    stations = [
        [trade.place(*(float(np.interp(a, path.index, path[key])) for key in ("id", "ood"))) for a in ALPHAS]
        for path in paths
    ]
    numbers = {
        key: [round(float(np.interp(a, paths[0].index, paths[0][key])), 2) for a in ALPHAS] for key in ("id", "ood")
    }
    charts = [_moving(along, lines, points, rule), _moving(trade, ways, stations)]
    return numbers, charts


def _at(line: Line, alpha: float) -> float:
    return float(np.interp(alpha, line.x, line.y))


def _moving(
    chart: Chart, lines: list[Line], points: list[list[tuple[float, float]]], rule: list[float] | None = None
) -> _Moving:
    start = [(line.x[0], line.y[0], line.look["color"]) for line in lines]
    drawn = chart.show(start, rule=None if rule is None else 0.0)
    rounded = [[[round(x, 1), round(y, 1)] for x, y in path] for path in points]
    frames = {"points": rounded, "rule": None if rule is None else [round(x, 1) for x in rule]}
    return _Moving(f"<div>{chart.style}{drawn}{names(lines)}</div>", frames)


def _examples() -> tuple[ImageSet, list[dict[str, Any]]]:
    """A few test images of each domain, and their likeliest classes at every step: [step][place] = [class, percent]."""
    backbone, delta = load_clip(), Delta.load(DEMO_DELTA)
    test = load_images().select(split="test")
    rng = np.random.default_rng(0)
    table = test.table.reset_index(drop=True)
    pool = test.take([row for _, own in table.groupby("domain") for row in rng.permutation(own.index)[:POOL]])
    curve = AlphaCurve.measure(backbone, delta, pool)
    first, last = curve.at(0.0).argmax(1), curve.at(1.0).argmax(1)
    chosen = _chosen(pool, first, last)
    probabilities = [curve.probabilities(float(alpha))[chosen] for alpha in ALPHAS]
    percents = 100 * torch.stack(probabilities).numpy()  # (steps, images, C)
    order = (-percents).argsort(-1, kind="stable")[..., :TOP]
    images = pool.take(chosen)
    examples = []
    for number, truth in enumerate(images.labels.tolist()):
        top = [
            [[int(label), round(float(percents[step, number, label]))] for label in order[step, number]]
            for step in range(STEPS)
        ]
        examples.append({"truth": truth, "top": top})
    return images, examples


def _chosen(pool: ImageSet, first: Tensor, last: Tensor) -> list[int]:
    """`SHOWN` rows of each domain: one that tuning gains and one that it loses, where there are such."""
    table = pool.table.reset_index(drop=True)
    labels = pool.labels
    gained, lost = (last == labels) & (first != labels), (first == labels) & (last != labels)
    rows = []
    for domain in pool.domains:
        own = table.index[table["domain"] == domain].tolist()
        ranked = [row for row in own if gained[row]][:1] + [row for row in own if lost[row]][:1]
        ranked += [row for row in own if first[row] != last[row]] + own
        rows += list(dict.fromkeys(ranked))[:SHOWN]
    return rows


def _card(images: ImageSet, number: int) -> str:
    buffer = io.BytesIO()
    small = images.image(number)
    small.thumbnail((96, 96))
    small.save(buffer, "PNG")
    about = images.table.iloc[number]
    name, domain = html.escape(about["class"]), html.escape(about["domain"])
    bars = '<p class="top"></p><div class="bar"><i></i></div>' * TOP
    return (
        f'<li><img src="{data_uri(buffer.getvalue(), "png")}" alt="{name}, {domain}" width="64" height="64">'
        f'<div><p class="quiet">{name}, {domain}</p>{bars}</div></li>'
    )
