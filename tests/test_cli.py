"""The console script: what it writes, what it says, and how it exits."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyterlab.labapp import LabApp
from nbformat import v4

from radapter_lite.cli import COMMANDS, main
from radapter_lite.publish import notebook

MEASURES = "from radapter_lite.publish.notebook import record\nrecord('accuracy', 0.123456)\nrecord('seed', seed)"
DRAWS = "from pathlib import Path\nPath('../figures').mkdir()\nPath('../figures/a.svg').write_text('<svg/>')"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two notebooks, in which the command line believes itself to be."""
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    for name, *code in (("00_start_here", MEASURES, DRAWS), ("02_build_the_adapter", "1 + 1")):
        cells = [v4.new_code_cell(source) for source in ('profile = "standard"\nseed = 0', *code)]
        cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(v4.new_notebook(cells=cells), root / "notebooks" / f"{name}.ipynb")
    monkeypatch.setattr(notebook, "PACKAGE", root / "radapter_lite")
    monkeypatch.chdir(root)
    return root


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_run_writes_notebooks_html_and_figures_and_ends_with_a_table(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (checkout / "notebooks" / "00_start_here.ipynb").read_bytes()
    assert main(["run", "--profile", "smoke"]) == 0
    assert files(checkout / "out") == [
        "figures/a.svg",
        "html/00_start_here.html",
        "html/02_build_the_adapter.html",
        "notebooks/00_start_here.ipynb",
        "notebooks/02_build_the_adapter.ipynb",
    ]
    told = capsys.readouterr().out
    assert re.search(r"00_start_here +accuracy +0\.1235", told) and str(checkout / "out") in told
    assert (checkout / "notebooks" / "00_start_here.ipynb").read_bytes() == before


def test_run_takes_some_notebooks_and_parameters(checkout: Path, tmp_path: Path) -> None:
    assert main(["run", "--only", "00", "-p", "seed", "3", "--out", str(tmp_path / "results")]) == 0
    copy = tmp_path / "results" / "notebooks" / "00_start_here.ipynb"
    assert notebook.metrics(copy)["seed"] == 3
    assert not (tmp_path / "results" / "notebooks" / "02_build_the_adapter.ipynb").exists()


def test_run_gives_each_notebook_what_it_declares_and_paths_in_full(checkout: Path) -> None:
    """A notebook of one's own, without a profile, beside one of the kit's, without data."""
    cells = [v4.new_code_cell('data = "pictoshift"', metadata={"tags": ["parameters"]})]
    cells.append(v4.new_code_cell("from radapter_lite.publish.notebook import record\nrecord('data', data)"))
    nbformat.write(v4.new_notebook(cells=cells), checkout / "mine.ipynb")
    (checkout / "photos").mkdir()
    only = ["--only", "mine.ipynb", "00"]
    assert main(["run", *only, "--profile", "smoke", "-p", "data", "photos", "-p", "seed", "3"]) == 0
    copies = checkout / "out" / "notebooks"
    assert notebook.metrics(copies / "mine.ipynb") == {"data": str(checkout / "photos")}
    assert notebook.metrics(copies / "00_start_here.ipynb")["seed"] == 3


def test_the_help_of_run_names_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    told = re.sub(r"\s+", " ", capsys.readouterr().out)
    named = re.search(r"in the notebooks that have it: (.*?) --", told)
    declared = {
        name
        for path in notebook.available()
        for name in notebook.declared_parameters(nbformat.read(path, as_version=4))
    }
    assert named and set(re.split(r", | or ", named[1])) == declared - {"profile"}


def test_make_update_renews_the_checkout(checkout: Path) -> None:
    """The Makefile's own recipe, with a command that leaves a notebook and a figure in the place of the kit's."""
    binaries = checkout / "venv" / "bin"
    binaries.mkdir(parents=True)
    command = binaries / "radapter-lite"
    command.write_text(
        '#!/bin/sh\necho "$*" > told; mkdir -p $3/notebooks $3/figures\n'
        "echo executed > $3/notebooks/00_start_here.ipynb; echo drawn > $3/figures/a.svg\n"
    )
    command.chmod(0o755)
    (checkout / "constraints.txt").touch()
    (checkout / "venv" / ".ready").touch()
    makefile = Path(__file__).parent.parent / "Makefile"
    subprocess.run(["make", "-f", makefile, "update", "VENV=venv", "ARGS=--only 00"], check=True, capture_output=True)
    assert (checkout / "told").read_text() == "run --out out/update --only 00\n"
    assert (checkout / "notebooks" / "00_start_here.ipynb").read_text() == "executed\n"
    assert (checkout / "notebooks" / "02_build_the_adapter.ipynb").exists()
    assert files(checkout / "figures") == ["a.svg"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--only", "99"], "no notebook '99'; there are 00_start_here, 02_build_the_adapter"),
        (["run", "-p", "sede", "1"], "No notebook to be run has a parameter 'sede'; the nearest names are seed"),
        (["run", "-p", "data", "x"], "has a parameter 'data'; the nearest names are profile, seed"),
        (["run", "--out", "."], "holds the notebook 00_start_here.ipynb itself"),
        (["run", "--out", "pyproject.toml"], "Not a directory"),
        (["lab", "--dir", "mine"], "--dir is for copies: in a checkout, name it with --exercises"),
    ],
)
def test_mistakes_end_in_one_sentence(
    checkout: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(arguments) == 1
    told = capsys.readouterr().err.strip()
    assert told.startswith("radapter-lite: ") and sentence in told and "\n" not in told
    assert not (checkout / "out").exists()  # nothing was executed


def test_a_failing_notebook_ends_in_one_sentence(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = checkout / "notebooks" / "02_build_the_adapter.ipynb"
    nb = nbformat.read(source, as_version=4)
    nb.cells[1].source = "1 / 0"
    nbformat.write(nb, source)
    assert main(["run", "--only", "02"]) == 1
    told = capfd.readouterr().err.strip()
    assert "02_build_the_adapter stopped in cell [2] with ZeroDivisionError" in told and "\n" not in told
    assert (checkout / "out" / "notebooks" / "02_build_the_adapter.ipynb").exists()


def test_lab_opens_the_first_notebook(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[list[str]] = []
    monkeypatch.setattr(LabApp, "launch_instance", launched.append)
    assert main(["lab", "--", "--no-browser"]) == 0
    assert launched == [[str(checkout / "notebooks" / "00_start_here.ipynb"), "--no-browser"]]


def test_lab_copies_packaged_notebooks_and_keeps_edited_ones(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "PACKAGE", checkout)  # notebooks inside the package: no checkout
    monkeypatch.setattr(LabApp, "launch_instance", lambda _: None)
    mine = tmp_path / "mine" / "notebooks" / "02_build_the_adapter.ipynb"
    mine.parent.mkdir(parents=True)
    mine.write_text("edited")
    assert main(["lab", "--dir", str(tmp_path / "mine")]) == 0
    assert files(tmp_path / "mine") == ["notebooks/00_start_here.ipynb", "notebooks/02_build_the_adapter.ipynb"]
    assert mine.read_text() == "edited"


def test_doctor_tells_versions_and_what_is_missing(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    from radapter_lite.commands import doctor

    monkeypatch.setattr(
        metadata, "requires", lambda _: ["torch>=2", "no-such-package>=1", "numpy>=999", "x; extra=='dev'"]
    )
    monkeypatch.setattr(doctor, "_backbone", lambda: ["ok      backbone: loads"])
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert f"ok      torch: {metadata.version('torch')}" in told and (
        "ok      [notebooks] for run, lab, book: complete\n" in told
    )
    assert 'BROKEN  no-such-package: missing; pip install "no-such-package>=1"' in told
    assert "ok      benchmark: PictoShift loads, " in told and " classes\n" in told
    assert "BROKEN  numpy:" in told and "is too old" in told and "3 broken" not in told and "2 broken" in told


WITHOUT = """
import sys
from importlib import metadata

missing = set(sys.argv[1:])


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def version(name, found=metadata.version):
    if name in missing:
        raise metadata.PackageNotFoundError(name)
    return found(name)


metadata.version = version
sys.meta_path.insert(0, Blocker())

from radapter_lite import cli
from radapter_lite.commands import doctor

doctor._backbone = lambda: ["backbone: not looked at"]
sys.exit(cli.main(["doctor"]))
"""


@pytest.mark.parametrize(
    ("missing", "sentences"),
    [
        (
            ("papermill", "peft"),
            (
                'BROKEN  peft: missing; pip install "peft>=',
                'without [notebooks] for run, lab, book: papermill missing or too old; pip install "radapter-lite[',
            ),
        ),
        (
            ("packaging", "tqdm"),
            (
                "BROKEN  packages: No module named 'packaging'",
                "BROKEN  benchmark: No module named 'tqdm'",
                "backbone: not looked at",
            ),
        ),
    ],
)
def test_doctor_does_without_what_it_finds_missing(missing: tuple[str, ...], sentences: tuple[str, ...]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT, *missing],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and run.stderr == ""
    assert all(sentence in run.stdout for sentence in sentences), run.stdout
    assert run.stdout.endswith(" broken.\n")


def test_doctor_finds_a_damaged_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    from radapter_lite.commands import doctor
    from radapter_lite.data import pictoshift

    archive = tmp_path / "pictoshift.zip"
    monkeypatch.setattr(pictoshift, "ARCHIVE", archive)
    monkeypatch.setattr(metadata, "requires", lambda _: [])
    monkeypatch.setattr(doctor, "_backbone", lambda: ["ok      backbone: loads"])
    assert main(["doctor"]) == 1
    assert "BROKEN  benchmark: pictoshift.zip is missing from the installation" in capsys.readouterr().out
    archive.write_bytes(b"half a file")
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "BROKEN  benchmark: pictoshift.zip is damaged" in told and "1 broken" in told


@pytest.mark.parametrize("command", [[], *([module.__name__.rpartition(".")[2]] for module in COMMANDS)])
def test_every_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    assert f"example: radapter-lite {' '.join(command)}".strip() in capsys.readouterr().out
