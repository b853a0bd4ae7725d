"""Execute the walkthrough notebooks, and read back what they measured.

An executed notebook is a result that is kept: it carries the hash of the code that made its outputs, and
nothing of the machine or the moment it ran on. What it measures it records as data, which `metrics` reads.
"""

import ast
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import nbformat
import papermill
from IPython.display import display
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from radapter_lite.errors import NotebookError
from radapter_lite.files import write_text
from radapter_lite.publish.kernel import Kernel

PACKAGE = Path(__file__).resolve().parent.parent
METRIC_MIME = "application/x.radapter-lite.metric+json"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
T = TypeVar("T")


def checkout() -> Path | None:
    """The root of the source checkout this package runs from, or None if it was installed from a wheel."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def available() -> list[Path]:
    """The walkthrough's notebooks in order, the checkout's or its copies. Raises FileNotFoundError without any."""
    if found := sorted(((checkout() or PACKAGE) / "notebooks").glob("*.ipynb")):
        return found
    raise FileNotFoundError("This installation holds no notebooks; install radapter-lite again.")


def find(name: str | Path) -> Path:
    """The notebook of a name, a number as "05", or the path of an .ipynb file. Raises FileNotFoundError, naming all."""
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name).resolve()
    for path in available():
        if str(name) in (path.stem, path.name, path.stem.split("_")[0]):
            return path
    names = ", ".join(path.stem for path in available())
    raise FileNotFoundError(f"There is no notebook {str(name)!r}; there are {names}.")


def record(name: str, value: Any) -> None:
    """Record a metric as data in the output of the cell that calls this; nothing is shown.

    `value` is anything JSON holds, or a NumPy or torch scalar. Raises ValueError for all else, NaN among it.
    """
    value = value.item() if hasattr(value, "item") else value
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        told = f"Metric {name!r} is {value!r}, which JSON cannot hold"
        raise ValueError(f"{told}; record finite numbers or text.") from error
    display({METRIC_MIME: {"name": name, "value": value}}, raw=True)


def sized(profile: str, smoke: T, standard: T, full: T) -> T:
    """What a profile asks for: of three sizes, one. Raises ValueError for any other profile."""
    sizes = {"smoke": smoke, "standard": standard, "full": full}
    if profile not in sizes:
        raise ValueError(f"there is no profile {profile!r}: set it to {', '.join(sizes)}")
    return sizes[profile]


def metrics(path: str | Path) -> dict[str, Any]:
    """The metrics an executed notebook recorded, by name and in order; the last value of a repeated one."""
    outputs = (output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", ()))
    recorded = (output["data"][METRIC_MIME] for output in outputs if METRIC_MIME in output.get("data", ()))
    return {metric["name"]: metric["value"] for metric in recorded}


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells as they were written: all but the one papermill injects parameters with."""
    code = (cell for cell in nb.cells if cell.cell_type == "code")
    return [cell for cell in code if "injected-parameters" not in cell.metadata.get("tags", ())]


def code_hash(nb: NotebookNode) -> str:
    """sha256 of a notebook's code: the same before and after execution, whatever was injected."""
    return hashlib.sha256(json.dumps([cell.source for cell in code_cells(nb)]).encode()).hexdigest()


def execute(
    name: str | Path, out_dir: str | Path, profile: str = "standard", parameters: Mapping[str, Any] | None = None
) -> Path:
    """Execute a notebook with papermill and return the path of the executed copy in `out_dir`.

    The kernel runs this very interpreter, in `out_dir`, without progress bars. `profile` and `parameters` replace
    values of the cell tagged `parameters`, where it declares others: a default run is the source and its outputs.

    Raises NotebookError if a cell fails, the copy holding what came before; ValueError for the notebook's own folder.
    """
    source, out_dir = find(name), Path(out_dir).resolve()
    target = out_dir / source.name
    declared = declared_parameters(nbformat.read(source, as_version=4))
    wanted = {"profile": profile, **(parameters or {})}
    if target == source:
        raise ValueError(f"{out_dir} holds the notebook {source.name} itself; name another folder for the results.")
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
        changed = {name: value for name, value in wanted.items() if name in declared and declared[name] != value}
        kernel = {"kernel_name": "python3", "language": "python", "kernel_manager_class": Kernel, "cwd": out_dir}
        papermill.execute_notebook(source, target, changed, progress_bar=False, coalesce_streams=True, **kernel)
    except (PapermillExecutionError, RuntimeError) as error:
        if isinstance(error, PapermillExecutionError):
            cell, what = error.exec_count, f"{error.ename}: {next(iter(error.evalue.strip().splitlines()), '')}"
        else:  # nbclient's word for a kernel that died; the cell it died in was the last to begin
            begun = code_cells(nbformat.read(target, as_version=4))
            cell = sum(each.metadata.papermill.status != "pending" for each in begun)
            what = "the end of its kernel, most often for want of memory"
        _finish(target, completed=False)
        told = f"{source.stem} stopped in cell [{cell}] with {what}"
        raise NotebookError(f"{told}; what ran until then is in {target}.") from error
    _finish(target, completed=True)
    return target


def declared_parameters(nb: NotebookNode) -> dict[str, Any]:
    """Name and value of every parameter that the cell tagged `parameters` assigns; `...` if no literal."""
    declared: dict[str, Any] = {}
    tagged = [cell.source for cell in code_cells(nb) if "parameters" in cell.metadata.get("tags", ())]
    for statement in ast.parse("\n".join(tagged)).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                declared[statement.targets[0].id] = ast.literal_eval(statement.value)
            except ValueError:
                declared[statement.targets[0].id] = ...
    return declared


def _finish(path: Path, completed: bool) -> None:
    """Strip an executed notebook of what is of its run only; stamp a completed one with the code's hash."""
    nb = nbformat.read(path, as_version=4)
    nb.metadata = NotebookNode(
        {name: state for name, state in nb.metadata.items() if name == "widgets"},
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for cell in nb.cells:
        kept = {key: value for key, value in cell.metadata.items() if value and key not in ("papermill", "execution")}
        cell.metadata = NotebookNode(kept)
    if completed:
        nb.metadata.radapter_lite = {"code_hash": code_hash(nb)}
    write_text(path, nbformat.writes(nb) + "\n")
