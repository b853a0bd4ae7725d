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
    names = [*METHODS, "zero-shot", "mine", "yours"]
    looks = {(plots.look(name)["color"], plots.look(name)["marker"]) for name in names}
    assert len(looks) == len(names)
    assert not {colour for colour, _ in plots.OTHERS} & {*plots.COLOURS}


def test_a_method_of_ones_own_has_a_place_in_every_figure() -> None:
    rows = [("mine", s, a, 50 + 10 * a + s, 40 + a) for s in range(3) for a in (0.0, 1.0)]
    by_seed = pd.DataFrame(rows, columns=["method", "seed", "alpha", "id", "ood"])
    points = pd.DataFrame({"method": ["mine"], "rule": "oracle", "left": 1.0, "left_ci": 0.1, "shots": 4})
    figure, axis = plt.subplots()
    plots.plot_trade_off(axis, by_seed)
    plots.plot_few_shot(axis, points, "left", 0.0)
    comparison_plots.plot_methods(axis, by_seed)
    comparison_plots.plot_ranking(axis, points, "left")
    comparison_plots.plot_rules(axis, points)
    comparison_plots.method_legend(figure, ["mine", "LoRA", "FLYP", "mine"])
    handles = figure.legends[0].legend_handles
    names = ["FLYP", "LoRA", "mine", "filled: α = 0.5", "open: α = 1, or no α"]
    assert [handle.get_label() for handle in handles] == names
    assert handles[2].get_marker() == plots.look("mine")["marker"]


def test_a_domain_has_the_same_look_in_every_chart() -> None:
    sweep = pd.DataFrame({"domain": ["photo", "sketch"] * 2, "alpha": [0, 0, 1, 1], "accuracy": [1, 2, 3, 4]})
    _, axis = plt.subplots()
    plots.plot_along_alpha(axis, sweep, "photo")
    for place, line in enumerate(axis.lines):
        look = plots.line_look(place, ("photo", "sketch")[place], is_id=place == 0)
        assert (line.get_label(), line.get_color(), line.get_lw()) == (look["label"], look["color"], look["lw"])
    assert axis.lines[0].get_label() == "photo (ID)" and axis.lines[0].get_lw() > axis.lines[1].get_lw()


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


def test_costs_stand_beside_their_peers() -> None:
    ratios = pd.DataFrame({"measure": ["step", "slider"], "peer": ["authors' code", "evaluation"]})
    ratios = ratios.assign(percent=[65.0, 0.2], lowest=[60.0, 0.1], highest=[70.0, 0.4])
    axis = comparison_plots.plot_speed(ratios).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["step: authors' code", "slider: evaluation"]
    assert axis.lines[1].get_xdata().tolist() == [65.0, 0.2] and {text.get_text() for text in axis.texts} == {
        "65",
        "0.2",
    }
