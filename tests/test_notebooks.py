"""Every notebook executes and records metrics, and the committed outputs belong to the committed code."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from radapter_lite.publish.notebook import code_cells, code_hash, declared_parameters, execute, metrics

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
WALKTHROUGH = [
    "00_start_here",
    "01_inside_clip",
    "02_build_the_adapter",
    "03_reparameterize",
    "04_the_loss",
    "05_few_shot_training",
    "06_alpha_slider",
    "07_ablations",
    "08_neighbours",
    "09_how_far_is_id",
    "10_base_to_novel",
    "11_retrieval",
    "12_segmentation",
    "13_few_shot_toolbox",
    "14_your_clip_your_images",
    "A1_the_backbone",
]
# What a notebook's metrics must satisfy in any profile, as (lowest, highest): the claims its text rests on.
BOUNDS = {
    "01_inside_clip": {
        "attention_against_torch": (0, 1e-6),
        "variance_per_d": (0.9, 1.1),
        "heads_against_torch": (0, 1e-6),
        "equivariance_error": (0, 1e-6),
        "neighbour_cosine_text": (0.3, 1),
        "neighbour_cosine_image": (-0.3, 0.1),
        "place_from_patch": (0.5, 1),
        "others_change_layer_norm": (0, 0),
        "others_change_batch_norm": (0.1, 10),
        "tokens_alike_without_residual": (0.99, 1.001),
        "tokens_alike_with_residual": (0, 0.8),
        "change_before_the_name": (0, 0),
        "blocks": (9, 9),
        "block_error_float32": (0, 1e-6),
        "block_error_float64": (0, 1e-14),
        "image_encoder_error": (0, 1e-5),
        "text_encoder_error": (0, 1e-5),
        "zero_shot_error": (0, 1e-5),
        "zero_shot_accuracy": (30, 70),
        "variance_by_place": (0.6, 1),
        "cost_of_hiding_read_most": (15, 50),
        "cost_of_hiding_read_least": (-10, 12),
    },
    "04_the_loss": {
        "info_nce_against_cross_entropy": (0, 1e-5),
        "conflict_gradient": (1, 50),
        "gap_info_nce": (0.02, 2),
        "gap_several_positives": (-0.02, 0.02),
        "naive_loop_difference": (0, 1e-9),
        "trivial_case_difference": (0, 1e-5),
        "margin_shift": (0.045, 0.055),
        "hardest_share_cold": (0.5, 1),
        "hardest_share_warm": (0, 0.7),
        "positives_per_image": (1, 5),
    },
}
RENEW = "run `make update ARGS='--only {}'` and commit what it renews"
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(home|root|Users|tmp|var|opt|work|mnt|private|usr)/\w|\b[A-Z]:\\\\")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def out_of_bounds(path: Path, found: dict[str, float]) -> list[str]:
    """The claims of a notebook that its metrics do not bear out."""
    bounds = BOUNDS.get(path.stem, {})
    return [f"{name} is {found[name]}" for name, (low, high) in bounds.items() if not low <= found[name] <= high]


def texts(nb: nbformat.NotebookNode) -> list[str]:
    """All that a notebook says in letters: sources and outputs, but no bitmaps."""
    outputs = [output for cell in code_cells(nb) for output in cell.outputs]
    shown = [data for output in outputs for kind, data in output.get("data", {}).items() if kind != "image/png"]
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
    assert nb.metadata.get("radapter_lite", {}).get("code_hash") == code_hash(nb), f"code has changed: {renew}"
    assert all(cell.execution_count for cell in code_cells(nb) if cell.source.strip()), renew
    assert len(code_cells(nb)) == sum(cell.cell_type == "code" for cell in nb.cells), f"injected cell: {renew}"
    assert metrics(path), f"no recorded metrics: {renew}"
    assert not out_of_bounds(path, metrics(path))


@each_notebook
def test_committed_outputs_are_fit_to_be_read(path: Path) -> None:
    nb = read(path)
    assert path.stat().st_size < 2e6  # photographs do not compress as drawings do
    assert not [output for cell in code_cells(nb) for output in cell.outputs if output.output_type == "error"]
    assert not [text[:200] for text in texts(nb) if MACHINE_PATH.search(text)]


@pytest.mark.notebook
@each_notebook
def test_a_smoke_run_completes_and_records_metrics(path: Path, tmp_path: Path) -> None:
    executed = execute(path, tmp_path / "notebooks", "smoke")
    assert metrics(executed)
    assert not out_of_bounds(path, metrics(executed))
