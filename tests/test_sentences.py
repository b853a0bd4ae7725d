"""What notebooks 06 and 07 say of made-up results of every kind: nothing that the numbers do not show."""

import ast
import itertools
import re
import zlib
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from radapter_lite import bench
from radapter_lite.alpha_choice import RULES
from radapter_lite.bench.ablations import MOMENTA, VARIANTS
from radapter_lite.publish.notebook import code_cells
from radapter_lite.statistics import compared, significant

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
VERDICTS = re.compile(
    r"ahead by|behind by|gains \d|loses \d|a gain in|a loss in|(more|less) than the sum|er by|down by|up by"
)
# Of notebook 07, what trains, evaluates or draws.
SLOW = {"settings-told", "switch-draw", "switch-move", "cell-08", "forest", "sweeps-figure", "cell-22", "one-average"}
SLOW |= {"measures", "cell-24", "cell-25", "momentum-told", "cell-27", "dropping-told"}


def cells(name: str) -> list[Any]:
    return code_cells(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))


def functions(name: str) -> dict[str, Any]:
    """The functions of a notebook's folded cells, and the constants in capitals beside them."""
    found: dict[str, Any] = {"np": np, "pd": pd, "t": t, "compared": compared, "held_out": (0.2, 0.5)}
    for cell in cells(name):
        if cell.metadata.get("jupyter", {}).get("source_hidden") or "your-turn" in cell.metadata.get("tags", ()):
            tree = ast.parse(cell.source)
            tree.body = [
                node
                for node in tree.body
                if isinstance(node, ast.FunctionDef)
                or (isinstance(node, ast.Assign) and ast.unparse(node)[:6] == "TAKE =")
            ]
            exec(compile(tree, name, "exec"), found)
    return found


def noise(key: object, seeds: int, size: float) -> np.ndarray:
    """Numbers that differ from seed to seed, of mean zero, so that means differ by what was put in alone."""
    drawn = np.random.default_rng(zlib.crc32(repr(key).encode())).normal(size=seeds)
    return size * (drawn - drawn.mean())


def ablations(gain: float, size: float, seeds: int) -> pd.DataFrame:
    """Saved runs in which each part adds `gain` points to ID and OOD, and any other change takes as many away."""
    rows = []
    momenta = {"R-Adapter": (0.0, *MOMENTA), "adapter, InfoNCE": (0.0, 0.98), "dropping, InfoNCE": (0.0, 0.98)}
    sides = ((True, "test"), (False, "test"), (True, "validation"))
    for place, variant in itertools.product(("outline", "camera"), VARIANTS):
        for m, alpha, (is_id, split) in itertools.product(momenta.get(variant, (0.98,)), (0.5, 1.0), sides):
            parts = (variant not in ("adapter, InfoNCE", "no dropping")) + (m > 0) + (alpha == 0.5)
            parts += ("InfoNCE" not in variant) - (m not in (0.0, 0.98))
            parts -= variant not in ("R-Adapter", "no dropping") and "InfoNCE" not in variant
            shaken = noise((place, variant, m, alpha, is_id, split), seeds, size)
            about = {
                "id_domain": place,
                "variant": variant,
                "momentum": m,
                "alpha": alpha,
                "is_id": is_id,
                "split": split,
            }
            rows += [
                about | {"seed": seed, "accuracy": 50 + gain * parts + shaken[seed], "trained_parameters": 1000}
                for seed in range(seeds)
            ]
    return pd.DataFrame(rows)


@pytest.fixture
def said(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What notebook 07 says of made-up results, by the cell's id, and what it calls the answers to its questions."""
    table = ablations(*request.param)
    monkeypatch.setattr(
        bench, "load_results", lambda name, id_domain="outline": table[table["id_domain"] == id_domain].copy()
    )
    told: dict[str, Any] = {"found": {}}
    texts: list[str] = []
    monkeypatch.setattr("IPython.display.display", lambda shown: texts.append(str(getattr(shown, "data", ""))))
    monkeypatch.setattr("radapter_lite.measured", told["found"].__setitem__)
    monkeypatch.setattr("radapter_lite.publish.notebook.record", lambda name, value: None)
    monkeypatch.setenv("RADAPTER_LITE_NO_READER", "1")
    space: dict[str, Any] = {"zero_shot": {"id": 50.0, "ood": 50.0}}
    plt.switch_backend("agg")
    for cell in cells("07_ablations"):
        if cell.id not in SLOW:
            texts.clear()
            exec(compile(cell.source, cell.id, "exec"), space)
            told |= {cell.id: "\n".join(texts)} if texts else {}
    assert (space["long"]["holm"] == significant(space["long"]["p"])).all()  # the reader's limits are the package's
    return told


def kind(gain: float, size: float, seeds: int, name: str) -> Any:
    return pytest.param((gain, size, seeds), id=name)


@pytest.mark.parametrize("said", [kind(3.0, 0.2, 5, "ahead")], indirect=True)
def test_notebook_07_says_what_each_part_gains(said: dict[str, Any]) -> None:
    ladder = said["cell-09"].split("**Predicted")[0]
    assert ladder.count("ahead by") == 12 and "behind by" not in ladder
    assert "dropping against none" not in ladder and "whole adapters is ahead of both others" in said["kinds-told"]
    assert said["found"]["07 kinds"] == "whole adapters" and said["found"]["07 setting"] in "mpδετ"
    earned = said["cell-29"].split("Earning its place")[1]
    assert all(f"{part} at α" in earned for part in ("re-scaling", "dropping", "accumulation"))
    assert said["cell-31"].count("OOD gains") == 2 and "They overlap" not in said["cell-30"]
    assert said["sizes-told"].count("behind by") == 10


@pytest.mark.parametrize("said", [kind(-3.0, 0.2, 5, "reversed")], indirect=True)
def test_notebook_07_says_what_each_part_costs(said: dict[str, Any]) -> None:
    ladder = said["cell-09"].split("**Predicted")[0]
    assert ladder.count("behind by") == 12 and "ahead by" not in ladder
    assert said["found"]["07 kinds"] == "not told apart" and "no kind is ahead of both" in said["kinds-told"]
    assert "gains" not in said["cell-29"] and said["cell-29"].rstrip().endswith(": none.")
    assert said["cell-31"].count("OOD loses") == 2
    assert said["sizes-told"].count("ahead by") == 10


@pytest.mark.parametrize(
    "said",
    [
        kind(0.3, 3.0, 5, "noise"),
        kind(0.0, 0.0, 5, "level"),
        kind(3.0, 0.2, 1, "one seed"),
        kind(0.0, 3.0, 2, "two seeds"),
    ],
    indirect=True,
)
def test_notebook_07_claims_nothing_that_the_interval_does_not_allow(said: dict[str, Any]) -> None:
    for name, text in said.items():
        if name != "found":
            assert not VERDICTS.findall(text), (name, text)
    assert said["found"]["07 kinds"] == "not told apart" and said["found"]["07 intervals"] == 0
    assert said["cell-29"].count("so there is no verdict") == 3
    assert "these seeds put the three in no order" in said["kinds-told"]


def test_one_run_gives_no_verdict_on_momentum_or_dropping() -> None:
    own = functions("07_ablations")
    columns = ["momentum", "learned share", "size", "validation", "corrected"]
    table = pd.DataFrame([(0.0, 1.0, 1.0, 60.0, 60.0), (0.98, 0.8, 0.7, 62.0, 62.0), (0.999, 0.1, 0.06, 51, 61)])
    text = own["told_momentum"](table.set_axis(columns, axis=1), 47.0, 96, 0.98)
    assert "**70%** of the live weights' size" in text and "act\nwith 35%" in text and "no verdict" in text
    by_p = pd.DataFrame({"training": [97.0, 94.0], "validation": [59.0, 62.0]}, index=[0.0, 0.1])
    for gain, seeds, expected in (
        (3.0, 5, "ahead by"),
        (-3.0, 5, "behind by"),
        (0.0, 5, "not told"),
        (3.0, 1, "one seed"),
    ):
        wide = pd.DataFrame({0.0: 50 + noise(0, seeds, 0.1), 0.1: 50 + gain + noise(1, seeds, 0.1)})
        text = own["told_dropping"](by_p, wide, 0.1)
        assert "One pair of runs gives no verdict" in text and expected in text.split("saved seeds")[1]


def regrets(left: dict[str, float], size: float, seeds: int, choice: float | None = None) -> pd.DataFrame:
    """What each rule leaves in made-up runs of two settings; "confidence" always chooses `choice`, if one is given."""
    rows = []
    for setting, rule in itertools.product(("outline", "camera"), RULES):
        shaken = noise((setting, rule), seeds, size)
        for seed in range(seeds):
            low = choice if rule == "confidence" and choice is not None else 0.1 * seed
            high = low if choice is not None and rule == "confidence" else low + 0.1
            rows.append((setting, "R-Adapter", rule, seed, left.get(rule, 2.0) + shaken[seed], low, high))
    return pd.DataFrame(rows, columns=["setting", "method", "rule", "seed", "left", "low", "high"])


@pytest.mark.parametrize("best", [rule for rule in RULES if rule != "oracle"])
def test_the_line_for_monday_names_the_rule_of_the_smallest_worst_case(best: str) -> None:
    own = functions("06_alpha_slider")
    text, rule = own["told_monday"](regrets({best: 0.5, "oracle": 0.0}, 0.05, 5))
    assert rule == best and own["TAKE"][best] in text and "better by" in text and "\n" not in text
    assert "leaves at most 0.6" in text or "leaves at most 0.5" in text


def test_the_line_for_monday_says_when_rules_are_not_told_apart() -> None:
    own = functions("06_alpha_slider")
    text, rule = own["told_monday"](regrets({"one standard error": 1.9}, 1.0, 5))
    assert rule == "one standard error" and "not told apart" in text and "better by" not in text
    assert "one seed gives no verdict" in own["told_monday"](regrets({"tuned": 0.1}, 0.1, 1))[0]


def test_a_rule_that_always_chooses_one_alpha_is_said_to() -> None:
    own = functions("06_alpha_slider")
    assert own["told_degenerate"](regrets({}, 0.1, 5)) == "No rule always chooses one end."
    text = own["told_degenerate"](regrets({}, 0.1, 5, choice=1.0))
    assert text.count("*confidence* chooses α = 1.00 ± 0.00 for R-Adapter.") == 2 and "information" not in text
    assert own["told_degenerate"](regrets({}, 0.1, 1, choice=0.75)) == "No rule always chooses one end."


@pytest.mark.parametrize(
    ("gain", "seeds", "expected"), [(3, 5, "ahead"), (-3, 5, "behind"), (0, 5, "not"), (3, 1, "not")]
)
def test_notebook_06_compares_with_the_interval(gain: float, seeds: int, expected: str) -> None:
    own = functions("06_alpha_slider")
    values = gain + noise("equal", seeds, 0.1)
    half = own["half_width"](pd.Series(values))
    last = {"id": 57.0, "difference": values.mean(), "difference_ci": half, "seeds": seeds}
    text, winner = own["told_equal"](last)
    assert expected in text and winner == {"ahead": "R-Adapter", "behind": "WiSE-FT", "not": "not told apart"}[expected]
    # OOD that is highest in the middle by `gain`, or lowest there
    rows = [
        ("R-Adapter", seed, alpha, 50 + gain * (alpha == 0.5) + noise(alpha, seeds, 0.1)[seed])
        for seed in range(seeds)
        for alpha in (0.0, 0.5, 1.0)
    ]
    text = own["told_peaks"](pd.DataFrame(rows, columns=["method", "seed", "alpha", "ood"]))
    assert ("down by" in text) == (expected == "ahead") and "up by" not in text
    gaps = pd.DataFrame(rows, columns=["method", "seed", "alpha", "gap"]).assign(setting="camera", side="ID")
    gaps["gap"] -= 50
    text, sure = own["told_gaps"](gaps)
    assert ("too sure by" in text) == (expected == "ahead") and ("unsure by" in text) == (expected == "behind")
    assert sure == [] and "further off" not in text and "nearer" not in text
    text = own["told_rules"](regrets({"tuned": 1.0, "fixed 0.5": 1.0 + gain}, 0.1, seeds).query("setting == 'camera'"))
    assert ("better by" in text) == (expected == "ahead") and "worse by" not in text


def test_notebook_06_says_what_one_run_shows() -> None:
    own = functions("06_alpha_slider")
    ways = ["rises all the way", "turns before α = 1"]
    for ood, way in (([40.0, 50.0, 55.0], ways[0]), ([40.0, 56.0, 55.0], ways[1])):
        text, found = own["told_turn"](pd.DataFrame({"alpha": [0.0, 0.5, 1.0], "ood": ood}), ways, 5, 2)
        assert found == way and way in text and "One run gives no verdict" in text
    points = (0.0, 0.5, 1.0)
    pairs = pd.DataFrame(itertools.product(points, points), columns=["image_alpha", "text_alpha"])
    for best, expected in (((0.5, 0.5), "a second α gains nothing"), ((1.0, 0.5), "points more than one α")):
        score = -((pairs["image_alpha"] - best[0]) ** 2) - (pairs["text_alpha"] - best[1]) ** 2
        assert expected in own["told_map"](pairs.assign(mean=50 + score, ood=50 + score))
    layers = pd.DataFrame({"layer": [0, 1], "tower": ["image", "text"], "id_change": [1.0, 2.0]})
    assert "difference, +7.0 points" in own["told_layers"](layers, 10.0)
    index = pd.MultiIndex.from_product([["R-Adapter"], ["5 nodes", "9 nodes"]], names=["method", "curve"])
    for changed, enough in (([0.5, 0.0], "9"), ([0.0, 0.0], "5"), ([0.5, 0.1], "more than 9")):
        worst = pd.DataFrame({"error": [0.1, 0.01], "changed": changed}, index)
        assert own["told_nodes"](worst, ["5", "9", "more than 9"])[1] == enough
