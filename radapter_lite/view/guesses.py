"""What the reader expects, asked before a measurement and set beside it after; kept in predictions.json.

Where nobody sits before the notebook, as under papermill, a question is a folded line, and nothing is kept.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from radapter_lite.files import write_text
from radapter_lite.view.plots import COLOURS

FILE = Path("predictions.json")  # in the notebooks' folder
NOBODY = "RADAPTER_LITE_NO_READER"  # set in the environment where no widget can be moved


def guess(
    name: str,
    question: str,
    low: float = 0,
    high: float = 100,
    unit: str = "",
    *,
    choices: Sequence[str] = (),
    at: Sequence[float] = (),
) -> None:
    """Ask for a number from `low` to `high`, for one of `choices`, or for a curve: a number for each of `at`.

    `name` is the same as in `measured`, and begins with the notebook's number: "05 steps".
    """
    if NOBODY in os.environ:
        told = "In JupyterLab your answer is kept here until the measurement stands beside it."
        display(Markdown(f"<details><summary><b>Predict:</b> {question}</summary>\n\n{told}\n\n</details>"))
        return
    said = _kept().get(name, {}).get("said")
    if choices:
        inputs: list[Any] = [widgets.RadioButtons(options=choices, value=said, layout={"width": "max-content"})]
    else:
        step = 1 if high - low >= 10 else (high - low) / 100
        look: dict[str, Any] = {"min": low, "max": high, "step": step, "readout_format": ".3g"}
        look |= {"orientation": "vertical", "layout": {"height": "140px"}} if at else {}
        labels = [f"{place:g}" for place in at] or [unit]
        middle = [low + step * round((high - low) / step / 2)] * len(labels)
        starts = middle if said is None else said if at else [said]
        pairs = zip(starts, labels, strict=True)
        inputs = [widgets.FloatSlider(start, description=label, **look) for start, label in pairs]

    def keep(change: Any) -> None:
        values = [each.value for each in inputs]
        _keep(name, {"question": question, "unit": unit, "range": high - low, "said": values if at else values[0]})

    for each in inputs:
        each.observe(keep, names="value")
    display(widgets.VBox([widgets.HTML(f"<b>Predict:</b> {question}"), widgets.HBox(inputs) if at else inputs[0]]))


def measured(name: str, found: Any) -> None:
    """Set what was found beside what the reader said to the question of this name, if they said anything."""
    kept = _kept().get(name)
    if NOBODY in os.environ or not kept:
        return
    curve, found = np.ndim(found) > 0, found if isinstance(found, str) else np.asarray(found, float).tolist()
    _keep(name, {"found": found})
    unit, said = kept["unit"], kept["said"]
    if isinstance(found, str):
        told = f"You said *{said}*, and so it is." if said == found else f"You said *{said}*; it is *{found}*."
    elif curve:
        each = [f"{a:.3g} → {b:.3g}" for a, b in zip(said, found, strict=True)]
        told = f"What you said → what it is{f' ({unit})' if unit else ''}: {', '.join(each)}."
    else:
        told = f"You said {said:.3g}{unit}; it is {found:.3g}{unit}."
    display(Markdown(f"**{told}**"))


def predictions() -> pd.DataFrame:
    """All that the reader said beside what was found: question, said, found, and how far off, in percent of the range.

    A choice that was wrong is 100 off. Draws how far off they were, one after the other, if any were made.
    """
    kept = {name: each for name, each in sorted(_kept().items()) if "found" in each}
    table = pd.DataFrame.from_dict(kept, "index").reindex(columns=["question", "said", "found"]).rename_axis("name")
    table["off"] = [_off(**each) for each in kept.values()]
    if kept:
        figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
        axes.bar(range(len(table)), table["off"], color=COLOURS[0])
        axes.set_xticks(range(len(table)), table.index, rotation=40, ha="right")
        axes.set(ylabel="off by (% of the range)", title="How far off your predictions were, notebook by notebook")
        plt.show()
    else:
        display(Markdown("No prediction is kept: answer the questions marked **Predict** in JupyterLab."))
    return table


def _off(said: Any, found: Any, **about: Any) -> float:
    if isinstance(found, str):
        return 100.0 * (said != found)
    return float(100 * np.abs(np.subtract(said, found)).mean() / about["range"])


def _kept() -> dict[str, Any]:
    try:
        return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{FILE} is damaged ({error}): delete it, and your predictions begin anew") from error


def _keep(name: str, about: dict[str, Any]) -> None:
    kept = _kept()
    write_text(FILE, json.dumps(kept | {name: kept.get(name, {}) | about}, indent=1))
