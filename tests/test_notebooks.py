"""Every notebook executes and records metrics, and the committed outputs belong to the committed code."""

import copy
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import yaml

from radapter_lite.publish.exercises import MARK, blanked, with_blanks
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
    "15_what_to_use_when",
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
    "02_build_the_adapter": {
        "adapters": (18, 18),
        "change_at_zero_start": (0, 0),
        "error_of_the_mean_adapter_dropping": (0, 0.06),
        "error_of_the_mean_dropout": (0, 0.06),
        "steps_to_95_percent_at_0.999": (2995, 2995),
        "package_against_hand": (0, 1e-5),
        "trained_ViT-B-16_full_rank": (20_447_232, 20_447_232),
        "trained_ViT-B-16_rank_4": (245_760, 245_760),
    },
    "03_reparameterize": {
        "one_linear_error": (0, 1e-6),
        "one_attention_error": (0, 1e-6),
        "merged_against_unmerged_float64": (0, 1e-10),
        "merged_against_unmerged_float32": (0, 1e-5),
        "merged_to_unmerged_rounding": (0, 1.5),
        "alpha_zero_is_bit_for_bit": (1, 1),
        "linear_residual": (0, 1e-8),
        "gelu_residual": (0.05, 1),
        "export_error": (0, 1e-6),
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
        "smallest_lead_under_mpm_nce": (0.09, 0.11),
        "positives_per_image": (1, 5),
    },
    "05_few_shot_training": {
        "loop_difference": (0, 0),
        "average_difference": (0, 1e-6),
        "steps_to_the_unwhitened_loss": (0, 100),
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


@each_notebook
def test_a_visible_cell_is_one_idea(path: Path) -> None:
    nb = read(path)
    visible = [cell.source for cell in code_cells(nb) if not cell.metadata.get("jupyter", {}).get("source_hidden")]
    lines = [sum(map(bool, map(str.strip, source.splitlines()))) for source in visible]
    assert statistics.median(lines) <= 9 and max(lines) <= 15
    assert sum(bool(re.match("import |from ", line)) for source in visible for line in source.splitlines()) <= 6
    assert not [line for cell in code_cells(nb) for line in cell.source.splitlines() if len(line) > 100]


@each_notebook
def test_the_reader_writes_predicts_and_moves(path: Path) -> None:
    nb = read(path)
    code = "\n".join(cell.source for cell in code_cells(nb))
    assert 2 <= len(exercises(path)) <= 4
    assert len(re.findall(r"^guess\(", code, re.MULTILINE)) >= 2
    assert re.search(r"\b(move|alpha_slider|encoder_map)\(", code)
    asked, answered = (set(re.findall(rf"\b{name}\(\s*[\"']([^\"']+)", code)) for name in ("guess", "measured"))
    assert asked == answered and all(name.split()[0] == path.stem.split("_")[0] for name in asked)


@each_notebook
def test_the_readers_version_has_a_blank_and_a_solution_for_each_exercise(path: Path) -> None:
    turns, blank = exercises(path), with_blanks(read(path))
    assert sum("<summary>Solution</summary>" in cell.source for cell in blank.cells) == len(turns)
    assert sum(f"...  {MARK}" in cell.source for cell in code_cells(blank)) == len(turns)
    assert not [cell for cell in code_cells(blank) if cell.outputs]


def exercises(path: Path) -> list[dict]:
    """Of each exercise: `cell`, a text that its cell alone has, and its `mistakes`: what to write, and what is told."""
    return yaml.safe_load((Path(__file__).parent / "exercises" / f"{path.stem.split('_')[0]}.yaml").read_text("utf-8"))


def with_mistakes(path: Path) -> nbformat.NotebookNode:
    """The notebook, and after each exercise's check its cell with a blank and with each mistake, checked again."""
    nb = read(path)
    code = code_cells(nb)
    turns = [cell for cell in code if "your-turn" in cell.metadata.get("tags", ())]
    about = exercises(path)
    assert len(turns) == len(about)
    for cell in turns:
        (own,) = [each for each in about if each["cell"] in cell.source]
        assert len(own["mistakes"]) >= 3
        check = code[code.index(cell) + 1]
        copies = list(_tried(cell, check, own["mistakes"]))
        place = nb.cells.index(check) + 1
        nb.cells[place:place] = copies
    return nb


def _tried(
    cell: nbformat.NotebookNode, check: nbformat.NotebookNode, mistakes: list[dict]
) -> Iterator[nbformat.NotebookNode]:
    versions = [("Nothing is written yet", blanked(cell.source))]
    for mistake in mistakes:
        lines = [(line, MARK in line) for line in cell.source.splitlines()]
        first = next(line for line, marked in lines if marked)
        indent = first[: len(first) - len(first.lstrip())]
        wrong = "\n".join(indent + line for line in mistake["write"].splitlines())
        kept = [wrong if line == first else line for line, marked in lines if line == first or not marked]
        versions.append((mistake["told"], "\n".join(kept)))
    for number, (told, source) in enumerate(versions):
        for original, code, said in ((cell, source, None), (check, check.source, told)):
            one = copy.deepcopy(original)
            one.id, one.source = f"{original.id[:40]}-try{number}", code
            one.metadata = nbformat.NotebookNode(told=said) if said else nbformat.NotebookNode()
            yield one
    right = copy.deepcopy(cell)
    right.id, right.metadata = f"{cell.id[:40]}-again", nbformat.NotebookNode()
    yield right


def told(cell: nbformat.NotebookNode) -> str:
    return " ".join(output.get("data", {}).get("text/markdown", "") for output in cell.outputs)


@pytest.mark.notebook
@each_notebook
def test_a_smoke_run_completes_and_every_mistake_gets_its_sentence(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source" / path.name
    source.parent.mkdir()
    nbformat.write(with_mistakes(path), source)
    executed = execute(source, tmp_path / "notebooks", "smoke")
    assert metrics(executed)
    assert not out_of_bounds(path, metrics(executed))
    cells = code_cells(read(executed))
    for before, cell in zip(cells, cells[1:], strict=False):
        if "your-turn" in before.metadata.get("tags", ()):
            assert "✓ Right" in told(cell), f"{before.source}: {told(cell)}"
        if expected := cell.metadata.get("told"):
            assert expected in told(cell), f"{before.source}: {told(cell)}"
