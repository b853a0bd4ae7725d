"""The README says what the saved results say, and names what exists."""

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import make_folder

from radapter_lite import load_tuned
from radapter_lite.bench import load_results, overview, overview_table, results_table, who_is_ahead
from radapter_lite.statistics import paired_differences, summarize

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("id_domain", ["camera", "outline"])
@pytest.mark.parametrize(("block", "make"), [("results", results_table), ("ahead", who_is_ahead)])
def test_what_it_says_of_results_is_what_was_saved(block: str, make: Callable[..., str], id_domain: str) -> None:
    found = re.search(f"<!-- {block} {id_domain} -->\n(.*?)\n<!-- /{block} {id_domain} -->", README, re.DOTALL)
    saved = load_results(id_domain=id_domain)
    assert found and found[1] == make(saved), f"print it anew: radapter-lite bench table --id {id_domain}"


def test_its_table_of_tasks_is_what_was_saved() -> None:
    found = re.search("<!-- overview -->\n(.*?)\n<!-- /overview -->", README, re.DOTALL)
    assert found and found[1] == overview_table(overview()), "print it anew: radapter-lite bench overview"


def test_what_it_says_of_four_times_the_steps_is_what_was_saved() -> None:
    assert "R-Adapter and WiSE-FT both gain ID and OOD accuracy at α = 0.5" in README
    assert "R-Adapter's lead on OOD is then no longer told apart from none" in README
    assert "with its stem trained along, R-Adapter is ahead of WiSE-FT on both" in README
    usual = load_results(id_domain="camera").query("shots == 16")
    longer = load_results("neighbours", id_domain="camera").rename(columns={"variant": "method"})
    both = pd.concat([usual, longer]).query("split == 'test' and alpha == 0.5 and seed < 1000")
    runs = {name: own for name, own in summarize(both, ["method", "seed"]).groupby("method")}
    for name in ("R-Adapter", "FLYP"):
        gain = paired_differences(runs[f"{name}, longer"], runs[name], ["method"]).iloc[0]
        assert gain["id"] > gain["id_ci"] and gain["ood"] > gain["ood_ci"]
    lead = paired_differences(runs["R-Adapter"], runs["FLYP"], ["method"]).iloc[0]
    then = paired_differences(runs["R-Adapter, longer"], runs["FLYP, longer"], ["method"]).iloc[0]
    assert lead["ood"] > lead["ood_ci"] and abs(then["ood"]) <= then["ood_ci"]
    stem = paired_differences(runs["R-Adapter, stem, longer"], runs["FLYP, longer"], ["method"]).iloc[0]
    assert stem["id"] > stem["id_ci"] and stem["ood"] > stem["ood_ci"]


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_notebook_is_named() -> None:
    assert all(path.name in README for path in (ROOT / "notebooks").glob("*.ipynb"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_three_lines_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a folder made here, in place of PictoShift, which takes longer."""
    three = blocks("python")[0]
    assert [line.partition(" =")[0] for line in three.splitlines()[2:]] == ["images", "clip", "tuned", "table"]
    folder, count = re.subn(r"load_images\(\)", f"load_images({str(make_folder(tmp_path / 'photos'))!r})", three)
    assert count == 1
    names: dict = {}
    # So few images make few steps: a shorter memory is what the sentence about momentum asks for.
    exec(compile(folder.replace("few_shot(16))", "few_shot(16), epochs=20, momentum=0.9)"), "README.md", "exec"), names)
    assert set(names["table"]["alpha"]) == {n / 10 for n in range(11)} and names["tuned"].method == "R-Adapter"
    names["tuned"].save(tmp_path / "mine")
    again = load_tuned(tmp_path / "mine")
    images, clip = names["images"].test, names["clip"]
    assert torch.equal(
        again.similarities(clip, images, alpha=0.5), names["tuned"].similarities(clip, images, alpha=0.5)
    )


def test_the_example_for_ones_own_images_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the backbone is another one: weights that are not fetched."""
    example = blocks("python")[1]
    folder = make_folder(tmp_path / "photos")
    (tmp_path / "names.csv").write_text("".join(f"{path.name},a {path.name} thing\n" for path in folder.iterdir()))
    monkeypatch.chdir(tmp_path)
    loaded, count = re.subn(r'load_clip\("ViT-B-32", "laion2b_s34b_b79k", ', "load_clip(", example)
    assert count == 1
    loaded = loaded.replace("few_shot(16))", "few_shot(16), epochs=20, momentum=0.9)")
    names: dict = {}
    exec(compile(loaded, "README.md", "exec"), names)
    assert names["images"].classes[0] == "a dark-blue thing"
    assert (tmp_path / "tuned.safetensors").exists()
