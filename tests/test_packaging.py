"""The two lists of dependencies agree, and an installed wheel works without the checkout."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import make_folder
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"torch": "pytorch", "open_clip_torch": "open-clip-torch", "build": "python-build"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution and the wheel, the second built from the first."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT], check=True)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_python(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and what this one has installed, but not its checkout.

    A .pth file lends the installed packages, for torch is too large to install again. The .pth file of an
    editable install is not followed from there, so radapter_lite can only come from the wheel.
    """
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", distributions[1]], check=True)
    where = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    (Path(where.strip()) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def outside(command: list[Any], folder: Path) -> str:
    """What a command prints in `folder`, far from the checkout; it must succeed.

    The packages lent keep data files, such as nbconvert's templates, in this environment's share/jupyter.
    """
    environment = os.environ | {"PYTHONPATH": "", "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked(*folders: str) -> set[str]:
    """The files that git tracks in some folders of the checkout."""
    listed = subprocess.check_output(["git", "ls-files", "-z", *folders], cwd=ROOT, text=True)
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


def test_conda_and_pip_name_the_same_dependencies(project: dict[str, Any]) -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    listed = dict(re.fullmatch(r"(\S+)\s*(\S*)", line).groups() for line in conda if isinstance(line, str))
    assert listed.pop("pip") == ""
    assert listed.pop("python") == project["requires-python"]
    extras = project["optional-dependencies"]
    wanted = map(Requirement, project["dependencies"] + [text for name in extras for text in extras[name]])
    own = (project["name"], "resvg-py")  # and what pretraining alone needs
    assert listed == {
        CONDA_NAMES.get(r.name, r.name): str(r.specifier) for r in wanted if not r.marker and r.name not in own
    }
    assert {"pip": ["--editable ."]} in conda


def test_dependencies_are_open_ranges(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        if Requirement(text).name == project["name"]:  # an extra of others
            continue
        assert [s.operator for s in Requirement(text).specifier] == [">="], text


# The modules that a part of the repository may import beside the core's, by the extra that brings them.
PARTS = {
    "radapter_lite": (),
    "radapter_lite/data/sources.py": ("scale",),
    "radapter_lite/view/guesses.py": ("notebooks",),
    "radapter_lite/view/sliders.py": ("notebooks",),
    "radapter_lite/view/search_gallery.py": ("notebooks",),
    "radapter_lite/publish": ("notebooks",),
    "radapter_lite/commands/run.py": ("notebooks",),
    "radapter_lite/commands/lab.py": ("notebooks",),
    "radapter_lite/app": ("app",),
    "radapter_lite/bench/runs.py": ("scale",),
    "tests": ("dev",),
    "pretrain": ("pretrain",),
}
MODULES = {
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "scikit-image": "skimage",
    "open_clip_torch": "open_clip",
    "beautifulsoup4": "bs4",
    "lazy-loader": "lazy_loader",
}
MODULES |= {"pyyaml": "yaml", "ipython": "IPython", "resvg-py": "resvg_py"}


def provided(project: dict[str, Any], extras: tuple[str, ...]) -> set[str]:
    """The top-level modules of what the core and some extras declare."""
    found, texts = set(), [*project["dependencies"]]
    waiting = list(extras)
    while waiting:
        for text in project["optional-dependencies"][waiting.pop()]:
            requirement = Requirement(text)
            waiting += requirement.extras if requirement.name == project["name"] else []
            texts.append(text)
    for text in texts:
        name = Requirement(text).name
        found.add(MODULES.get(name, name))
    return found


def third_party(path: Path) -> set[str]:
    """The modules that a file imports, within functions too, which are neither Python's nor the project's."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    own = {"radapter_lite", "conftest"} | {file.stem for file in (ROOT / "pretrain").glob("*.py")}
    return names - set(sys.stdlib_module_names) - own


@pytest.mark.parametrize(
    "path", sorted(p for f in ("radapter_lite", "tests", "pretrain") for p in (ROOT / f).rglob("*.py")), ids=str
)
def test_every_package_that_is_imported_is_declared(path: Path, project: dict[str, Any]) -> None:
    name = path.relative_to(ROOT).as_posix()
    extras = PARTS[max((part for part in PARTS if name.startswith(part)), key=len)]
    assert third_party(path) <= provided(project, extras) | {"tomli"}


WITHOUT = """
import sys

brought = {modules!r}


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in brought:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocker())
from radapter_lite.cli import main

sys.exit(main(sys.argv[1:]))
"""


def test_the_core_works_without_what_the_extras_bring(project: dict[str, Any], tmp_path: Path) -> None:
    make_folder(tmp_path / "shapes", images=4)
    script = WITHOUT.format(modules=sorted(provided(project, ("all",)) - provided(project, ())))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    tune = ("tune", "shapes", "--shots", "1", "--method", "linear probe", "--out", "out")
    for words in (("--help",), tune, ("sweep", "out/tuned", "shapes")):
        done = run(*words)
        assert done.returncode == 0, done.stderr
    needy = {"run": "notebooks", "lab": "notebooks", "book": "notebooks", "app": "app"}
    for command, extra in (needy | {"bench few_shot --dask tcp://127.0.0.1:9": "scale"}).items():
        done = run(*command.split())
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert f'which is not installed: pip install "radapter-lite[{extra}]"' in done.stderr


@pytest.mark.packaging
def test_the_wheel_carries_code_assets_and_notebooks(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    notebooks = {f"radapter_lite/{name}" for name in tracked("notebooks")}
    assert tracked("radapter_lite") | notebooks <= names
    assert {Path(name).parts[0] for name in names} == {"radapter_lite"}
    assert not [name for name in names if "__pycache__" in name or ".ipynb_checkpoints" in name]


@pytest.mark.packaging
def test_the_source_distribution_carries_what_is_tracked(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[0]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert tracked() <= names
    assert not [name for name in names if name.startswith((".venv/", "out/", "dist/"))]


@pytest.mark.packaging
def test_the_backbone_loads_from_an_installed_wheel(clean_python: Path, tmp_path: Path) -> None:
    code = "import radapter_lite; print(radapter_lite.__file__)\nradapter_lite.load_clip('picto')"
    printed = outside([clean_python, "-c", code], tmp_path)
    assert Path(printed.strip()).is_relative_to(clean_python.parent.parent)


@pytest.mark.packaging
@pytest.mark.notebook
def test_the_console_script_runs_the_packaged_notebooks(clean_python: Path, tmp_path: Path) -> None:
    script = clean_python.parent / "radapter-lite"
    outside([script, "doctor"], tmp_path)
    outside([script, "run", "--profile", "smoke", "--only", "00"], tmp_path)
    assert (tmp_path / "out" / "html" / "00_start_here.html").is_file()
