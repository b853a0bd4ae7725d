"""The shared figures: every method can be told from every other one, and what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from radapter_lite.methods.registry import METHODS
from radapter_lite.view import comparison_plots, plots


@pytest.fixture(autouse=True)
def close():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def test_no_two_methods_look_the_same() -> None:
    looks = {
        name: (plots.METHOD_COLOURS[name], plots.METHOD_MARKERS[name]) for name in [*METHODS, "zero-shot"]
    }
    assert len(set(looks.values())) == len(looks)


def test_a_curve_is_a_line_and_a_point_a_point() -> None:
    rows = [("LoRA", s, a, 50 + 10 * a + s, 40 + a) for s in range(3) for a in (0.0, 0.5, 1.0)]
    rows += [("CoOp", s, 1.0, 55.0 + s, 42.0) for s in range(3)]
    _, axis = plt.subplots()
    comparison_plots.plot_methods(axis, pd.DataFrame(rows, columns=["method", "seed", "alpha", "id", "ood"]))
    lines = [line for line in axis.lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in lines] == [3, 1]
    np.testing.assert_allclose(lines[0].get_xdata(), [51, 56, 61])


def test_a_forest_has_a_row_a_label_and_bold_groups() -> None:
    table = pd.DataFrame(
        [("parts", "no dropping", s, 1.0, 0.5, -1.0, 0.5) for s in ("α = 1", "α = 0.5")]
        + [("rank", "4", "α = 1", -2.0, 0.5, 0.0, 0.5)],
        columns=["group", "label", "series", "id", "id_ci", "ood", "ood_ci"],
    )
    _, axes = plt.subplots(1, 2, sharey=True)
    comparison_plots.plot_forest(axes, table)
    labels = axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["parts", "no dropping", "rank", "4"]
    assert [label.get_fontweight() for label in labels] == ["bold", "normal", "bold", "normal"]
    assert axes[0].containers[0].lines[0].get_xdata().tolist() == [1.0, -2.0]
    assert axes[1].containers[0].lines[0].get_xdata().tolist() == [-1.0, 0.0]


def test_a_ranking_is_sorted() -> None:
    table = pd.DataFrame({"method": ["CoOp", "LoRA", "FLYP"], "gain": [1.0, -1.0, 0.0], "gain_ci": 0.2})
    _, axis = plt.subplots()
    comparison_plots.plot_ranking(axis, table, "gain")
    assert [label.get_text() for label in axis.get_yticklabels()] == ["LoRA", "FLYP", "CoOp"]
