"""The README says what the saved results say, and names what exists."""

import re
from pathlib import Path

import pytest
from conftest import make_folder

from radapter_lite.bench import load_results, results_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_results_table_is_the_saved_one() -> None:
    block = re.search(r"<!-- results -->\n(.*?)\n<!-- /results -->", README, re.DOTALL)
    assert block and block[1] == results_table(load_results()), "print it anew: radapter-lite bench --table"


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_notebook_is_named() -> None:
    assert all(path.name in README for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_the_python_example_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten lines for the user's own data, on a folder made here; only the backbone is the embedded one."""
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example and len([line for line in example[1].splitlines() if line.strip()]) <= 10
    make_folder(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    loaded, count = re.subn(r"load_clip\(.*?\)  #", "load_clip()  #", example[1])
    assert count == 1
    exec(compile(loaded, "README.md", "exec"), {})
    assert (tmp_path / "my_delta.json").exists() and (tmp_path / "tuned.safetensors").exists()
