"""Executing notebooks: parameters, recorded metrics, the hash of the code, what is kept, what errors say."""

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat import v4

from radapter_lite.publish import notebook
from radapter_lite.publish.html import to_html
from radapter_lite.publish.notebook import NotebookError, code_hash, execute, find, metrics, record

PARAMETERS = 'profile = "standard"\nseed = 0'


def write(path: Path, *code: str, markdown: str = "# A question") -> Path:
    """A notebook of one Markdown cell, the parameters cell and the code given."""
    cells = [v4.new_markdown_cell(markdown), v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    nbformat.write(v4.new_notebook(cells=cells + [v4.new_code_cell(source) for source in code]), path)
    return path


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A notebook and its copy executed with another profile."""
    folder = tmp_path_factory.mktemp("runner")
    source = write(
        folder / "00_demo.ipynb",
        "from radapter_lite.publish.notebook import record\n"
        "record('accuracy', 0.5)\nrecord('profile', profile)\nrecord('seed', seed)",
        "from time import sleep\nfrom tqdm import tqdm\nprint('before')\n"
        "for _ in tqdm(range(2), desc='outer'):\n"
        "    for _ in tqdm(range(20), desc='inner', leave=False):\n        sleep(0.02)\n"
        "print('after')",
        "import ipywidgets\nipywidgets.IntSlider()",
        "import os, sys\nrecord('interpreter', sys.executable)\nrecord('folder', os.getcwd())",
        "from radapter_lite.progress import progress\n"
        "for _ in progress(range(2), 'outer'):\n"
        "    for _ in progress(range(5), 'inner'):\n        sleep(0.12)",
        markdown=r"Costs \$5: $\tilde W$ and $$\frac{a}{b}$$",
    )
    return source, execute(source, folder / "out", "smoke", {"seed": 0})


def test_parameters_reach_the_notebook_and_metrics_come_back(executed: tuple[Path, Path]) -> None:
    measured = metrics(executed[1])
    assert list(measured)[:3] == ["accuracy", "profile", "seed"]
    assert (measured["accuracy"], measured["profile"], measured["seed"]) == (0.5, "smoke", 0)


def test_the_kernel_is_this_interpreter_in_the_output_folder(executed: tuple[Path, Path]) -> None:
    import sys

    measured = metrics(executed[1])
    assert (measured["interpreter"], measured["folder"]) == (sys.executable, str(executed[1].parent))


def test_only_what_differs_from_the_source_is_injected(executed: tuple[Path, Path]) -> None:
    (injected,) = [c for c in read(executed[1]).cells if "injected-parameters" in c.metadata.get("tags", ())]
    assert "smoke" in injected.source and "seed" not in injected.source


def test_the_hash_is_of_the_source_code_and_of_nothing_else(executed: tuple[Path, Path]) -> None:
    source, copy = map(read, executed)
    assert copy.metadata.radapter_lite.code_hash == code_hash(copy) == code_hash(source)
    source.cells[0].source += " in other words"
    assert code_hash(copy) == code_hash(source)
    source.cells[2].source += "  # touched"
    assert code_hash(copy) != code_hash(source)


def test_nothing_of_the_run_is_kept(executed: tuple[Path, Path]) -> None:
    copy = read(executed[1])
    assert set(copy.metadata) == {"kernelspec", "language_info", "radapter_lite", "widgets"}
    assert set(copy.metadata.kernelspec) == {"display_name", "language", "name"}
    assert {key for cell in copy.cells for key in cell.metadata} == {"tags"}
    assert list(executed[1].parent.iterdir()) == [executed[1]]


def test_progress_bars_leave_no_output_and_what_is_printed_is_one(executed: tuple[Path, Path]) -> None:
    (output,) = read(executed[1]).cells[4].outputs
    assert (output.name, output.text) == ("stdout", "before\nafter\n")
    assert read(executed[1]).cells[-1].outputs == []


def test_html_needs_no_network(executed: tuple[Path, Path], tmp_path: Path) -> None:
    html = to_html(executed[1], tmp_path / "html" / "demo.html").read_text()
    assert "<script" not in html and not re.search(r"""(src|href)=["']?(https?:)?//""", html)
    assert html.count("<math") == 2 and "<mfrac>" in html and "Costs $5" in html
    assert "interactive widget" in html and notebook.METRIC_MIME not in html


def test_links_between_notebooks_lead_to_their_pages(tmp_path: Path) -> None:
    source = write(tmp_path / "n.ipynb", markdown="[next](02_next.ipynb) [else](https://a.org/b.ipynb)")
    html = to_html(source, tmp_path / "n.html").read_text()
    assert 'href="02_next.html"' in html and 'href="https://a.org/b.ipynb"' in html


def test_a_formula_that_cannot_be_read_stays_as_written(tmp_path: Path) -> None:
    html = to_html(write(tmp_path / "n.ipynb", markdown=r"$a_b_c$"), tmp_path / "n.html").read_text()
    assert "<code>a_b_c</code>" in html


def test_a_failing_cell_is_told_in_a_sentence_and_what_ran_is_kept(tmp_path: Path) -> None:
    source = write(tmp_path / "bad.ipynb", "print('so far')", "raise ValueError('no\\nsuch thing')", "print('never')")
    with pytest.raises(NotebookError, match=r"^bad stopped in cell \[3\] with ValueError: no; .*bad\.ipynb\.$"):
        execute(source, tmp_path / "out")
    copy = read(tmp_path / "out" / "bad.ipynb")
    assert "radapter_lite" not in copy.metadata
    assert [output.output_type for cell in copy.cells for output in cell.get("outputs", ())] == ["stream", "error"]


def test_a_dying_kernel_is_told_in_a_sentence(tmp_path: Path) -> None:
    source = write(tmp_path / "bad.ipynb", "import os\nos._exit(1)")
    with pytest.raises(NotebookError, match=r"stopped in cell \[2\] with the end of its kernel"):
        execute(source, tmp_path / "out")


def test_a_parameter_that_is_not_declared_is_left_out(tmp_path: Path) -> None:
    done = execute(write(tmp_path / "n.ipynb", "record = 1"), tmp_path / "out", parameters={"shots": 4})
    assert len(read(done).cells) == 3


def test_a_notebook_is_never_executed_onto_itself(tmp_path: Path) -> None:
    source = write(tmp_path / "n.ipynb")
    with pytest.raises(ValueError, match="holds the notebook n.ipynb itself"):
        execute(source, tmp_path)


def test_notebooks_are_found_by_number_name_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebooks").mkdir()
    source = write(tmp_path / "notebooks" / "05_few_shot_training.ipynb")
    monkeypatch.setattr(notebook, "PACKAGE", tmp_path)
    for name in ("05", "05_few_shot_training", "05_few_shot_training.ipynb", str(source)):
        assert find(name) == source
    with pytest.raises(FileNotFoundError, match="no notebook '5'; there are 05_few_shot_training"):
        find("5")


def test_a_checkout_is_told_from_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "PACKAGE", tmp_path / "radapter_lite")
    assert notebook.checkout() is None
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert notebook.checkout() == tmp_path


def test_record_writes_one_invisible_output(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict] = []
    monkeypatch.setattr(notebook, "display", lambda data, raw: shown.append(data))
    record("accuracy", np.float32(0.25))
    assert json.loads(json.dumps(shown)) == [{notebook.METRIC_MIME: {"name": "accuracy", "value": 0.25}}]


@pytest.mark.parametrize("value", [float("nan"), np.float64("inf"), object(), {1, 2}])
def test_record_refuses_what_json_cannot_hold(value: object) -> None:
    with pytest.raises(ValueError, match="'accuracy' is .* JSON cannot hold"):
        record("accuracy", value)
