"""Every notebook executes and records metrics, and the committed outputs belong to the committed code."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from radapter_lite.notebook import code_cells, code_hash, declared_parameters, execute, metrics

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
WALKTHROUGH = [
    "00_start_here",
    "02_build_the_adapter",
    "03_reparameterize",
    "05_few_shot_training",
    "06_alpha_slider",
    "07_ablations",
    "08_neighbours",
]
RENEW = "run `radapter-lite run --update --only {}` and commit what it renews"
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(home|root|Users|tmp|var|opt|work|mnt|private|usr)/\w|\b[A-Z]:\\\\")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def texts(nb: nbformat.NotebookNode) -> list[str]:
    """All that a notebook says in letters: sources and outputs, but no bitmaps."""
    outputs = [output for cell in code_cells(nb) for output in cell.outputs]
    shown = [
        data for output in outputs for kind, data in output.get("data", {}).items() if kind != "image/png"
    ]
    printed = [output.get("text", "") for output in outputs]
    return [cell.source for cell in nb.cells] + printed + [json.dumps(data) for data in shown]


def test_the_walkthrough_is_complete() -> None:
    missing = set(WALKTHROUGH) - {path.stem for path in NOTEBOOKS}
    assert not missing


@each_notebook
def test_parameters_are_declared(path: Path) -> None:
    declared = declared_parameters(read(path))
    assert {"profile", "seed", "backbone", "shots", "figures_dir"} <= declared.keys()
    assert declared["profile"] == "standard" and declared["figures_dir"] == "../figures"


@each_notebook
def test_the_title_is_the_only_heading_of_its_size(path: Path) -> None:
    """Text that was meant as a paragraph and has a # before it would be one more."""
    prose = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    titles = [line for text in prose for line in text.splitlines() if line == "#" or line.startswith("# ")]
    assert len(titles) == 1 and prose[0].startswith(titles[0])
    assert titles[0].startswith(f"# {path.stem.split('_')[0]} · ")


@each_notebook
def test_committed_outputs_belong_to_the_committed_code(path: Path) -> None:
    nb, renew = read(path), RENEW.format(path.stem)
    assert nb.metadata.get("radapter_lite", {}).get("code_hash") == code_hash(nb), (
        f"code has changed: {renew}"
    )
    assert all(cell.execution_count for cell in code_cells(nb) if cell.source.strip()), renew
    assert len(code_cells(nb)) == sum(cell.cell_type == "code" for cell in nb.cells), (
        f"injected cell: {renew}"
    )
    assert metrics(path), f"no recorded metrics: {renew}"


@each_notebook
def test_committed_outputs_are_fit_to_be_read(path: Path) -> None:
    nb = read(path)
    assert path.stat().st_size < 1.5e6
    assert not [output for cell in code_cells(nb) for output in cell.outputs if output.output_type == "error"]
    assert not [text[:200] for text in texts(nb) if MACHINE_PATH.search(text)]


@pytest.mark.notebook
@each_notebook
def test_a_smoke_run_completes_and_records_metrics(path: Path, tmp_path: Path) -> None:
    executed = execute(path, tmp_path / "notebooks", "smoke")
    assert metrics(executed)
