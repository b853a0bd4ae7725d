"""Exercises say what is wrong, predictions stand beside what was measured, and pictures follow their sliders."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from radapter_lite.errors import NotebookError
from radapter_lite.publish import exercises
from radapter_lite.publish.exercises import blanked, check, with_blanks
from radapter_lite.publish.notebook import sized
from radapter_lite.view import guesses, sliders
from radapter_lite.view.guesses import NOBODY, guess, measured, predictions
from radapter_lite.view.sliders import Moving, move

RIGHT = torch.tensor([[1.0, 2.0], [3.0, -4.0]])


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list:
    """What is displayed, in order; predictions are kept in a folder of the test."""
    seen: list = []
    for module in (exercises, guesses, sliders):
        monkeypatch.setattr(module, "display", seen.append)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(NOBODY, raising=False)
    return seen


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (RIGHT.clone(), "✓ Right"),
        (lambda: RIGHT.numpy(), "✓ Right"),
        (RIGHT.clone().requires_grad_(), "✓ Right"),
        (..., "Nothing is written yet"),
        (lambda: None, "Nothing is written yet"),
        (lambda: ... + RIGHT, "Nothing is written yet"),  # type: ignore[operator]
        (lambda: next(iter([])), "Your line stopped with StopIteration: no word of why"),
        (lambda: RIGHT @ torch.ones(3), "Your line stopped with RuntimeError: size mismatch"),
        (RIGHT.T, "transposed"),
        (RIGHT[:1].T, "the shape (2, 1), and should have (2, 2)"),
        (-RIGHT, "wrong sign"),
        (3 * RIGHT, "3 times what it should be"),
        (RIGHT + 1, "one was added"),
        (RIGHT + torch.tensor([[0.0, 0.0], [0.0, 0.5]]), "differs most at [1, 1]: it is -3.5, and should be -4"),
        ("left", "of type str, and should be Tensor"),
        (RIGHT > 0, "of type Tensor of torch.bool, and should be Tensor of torch.float32"),
    ],
)
def test_an_answer_is_judged_in_one_sentence(shown: list, answer: object, told: str) -> None:
    check(answer, RIGHT, {"one was added": RIGHT + 1})
    assert told in shown[0].data and len(shown) == 1


@pytest.mark.parametrize(
    ("answer", "right", "told"),
    [
        ("both", "both", "✓"),
        ("one", "both", "✗ Your result is one"),
        (3, 3.0, "✓"),
        (6, 3.0, "is 6, and should be 3"),
        (True, False, "✗"),
        ([True, False], [True, True], "Some of it is another"),
        (pd.Series([1.0, 2.0]), np.array([1.0, 2.0]), "✓"),
        (torch.zeros(2), torch.zeros(2), "✓"),
        (torch.ones(2), torch.zeros(2), "differs most"),
        (float("nan"), 1.0, "✗"),
    ],
)
def test_numbers_texts_and_tables_are_judged(shown: list, answer: object, right: object, told: str) -> None:
    check(answer, right)
    assert told in shown[0].data


def test_blanks_keep_what_is_not_the_readers() -> None:
    source = "def f(x):\n    y = x @ W  # your turn\n    total += y  # your turn\n    return y + x  # your turn"
    blank = "def f(x):\n    y = ...  # your turn\n    total += ...  # your turn\n    return ...  # your turn"
    assert blanked(source) == blank


def test_the_readers_notebook_has_a_solution_after_the_check() -> None:
    turn = new_code_cell("y = x + 1  # your turn", metadata={"tags": ["your-turn"]}, id="turn")
    nb = new_notebook(cells=[turn, new_markdown_cell("word"), new_code_cell("check(y, 2)", id="check")])
    made = with_blanks(nb).cells
    assert [cell.source for cell in made[:3]] == ["y = ...  # your turn", "word", "check(y, 2)"]
    assert "y = x + 1\n" in made[3].source and turn.source == "y = x + 1  # your turn"


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ([new_code_cell("y = 1", metadata={"tags": ["your-turn"]})], "end the reader's lines in '# your turn'"),
        (
            [new_code_cell("y = 1  # your turn", metadata={"tags": ["your-turn"]}), new_code_cell("y")],
            "an exercise without a check",
        ),
    ],
)
def test_an_exercise_that_cannot_be_checked_is_refused(cells: list, told: str) -> None:
    with pytest.raises(NotebookError, match=told):
        with_blanks(new_notebook(cells=cells))


def inputs(seen: list) -> list:
    row = seen[-1].children[1]
    return list(row.children) if hasattr(row, "children") and row.children else [row]


def test_a_number_is_kept_until_it_is_measured(shown: list) -> None:
    guess("05 steps", "How many steps?", 0, 200, " steps")
    measured("05 steps", 52.0)
    assert len(shown) == 1  # nothing was said yet
    inputs(shown)[0].value = 30
    measured("05 steps", 52.0)
    assert "You said 30 steps; it is 52 steps." in shown[-1].data
    guess("05 steps", "How many steps?", 0, 200, " steps")
    assert inputs(shown)[0].value == 30


def test_a_choice_and_a_curve_are_kept_too(shown: list) -> None:
    guess("06 best", "Which?", choices=["ID", "OOD"])
    inputs(shown)[0].value = "ID"
    measured("06 best", "OOD")
    assert "You said *ID*; it is *OOD*." in shown[-1].data
    guess("06 curve", "How does it bend?", at=(0, 0.5, 1))
    for control, value in zip(inputs(shown), (40, 50, 45), strict=True):
        control.value = value
    measured("06 curve", torch.tensor([40.0, 52.0, 44.0]))
    assert "40 → 40, 50 → 52, 45 → 44" in shown[-1].data
    table = predictions()
    assert table.loc["06 best", "off"] == 100 and table.loc["06 curve", "off"] == pytest.approx(1)


def test_without_a_reader_a_question_is_a_folded_line(shown: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOBODY, "1")
    guess("00 hardest", "Which is the hardest?", choices=["a", "b"])
    measured("00 hardest", "a")
    assert len(shown) == 1 and "<details>" in shown[0].data and "Which is the hardest?" in shown[0].data
    assert predictions().empty and not guesses.FILE.exists()


def test_predictions_that_cannot_be_read_are_told(shown: list) -> None:
    guesses.FILE.write_text("{half")
    with pytest.raises(ValueError, match=r"predictions\.json is damaged.*delete it"):
        guess("00 x", "?")


def test_a_picture_follows_its_sliders_without_drawing(shown: list) -> None:
    drawn = []

    def draw(rank: int, gamma: float) -> str:
        drawn.append((rank, gamma))
        return f"<b>{rank}, {gamma}</b>"

    moved = Moving(draw, rank=(1, 4, 16), gamma=(0.0, 1.0))
    assert len(drawn) == 6 and moved.picture.value == "<b>4, 1.0</b>"
    moved.controls["rank"].value = 16
    moved.controls["gamma"].value = 0.0
    assert moved.picture.value == "<b>16, 0.0</b>" and len(drawn) == 6


def test_where_no_kernel_runs_a_strip_stands(shown: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOBODY, "1")

    def draw(tau: float) -> Figure:
        figure = Figure(figsize=(2, 1))
        figure.add_subplot().set_title(f"<{tau}>")
        return figure

    move(draw, tau=tuple(n / 10 for n in range(11)))
    (strip,) = shown
    assert strip.data.count("<figure") == 5 and "tau = 0</figcaption>" in strip.data and "tau = 1<" in strip.data
    assert 'alt="&lt;0.5&gt;"' in strip.data


def test_a_profile_has_its_size() -> None:
    assert [sized(profile, 1, 2, 3) for profile in ("smoke", "standard", "full")] == [1, 2, 3]
    with pytest.raises(ValueError, match="no profile 'quick': set it to smoke, standard, full"):
        sized("quick", 1, 2, 3)
