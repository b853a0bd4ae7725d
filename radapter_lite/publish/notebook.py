"""Execute the walkthrough notebooks, and read back what they measured.

An executed notebook is a result that is kept: it carries the hash of the code that made its outputs, and
nothing of the machine or the moment it ran on. What it measures it records as data, which `metrics` reads.
"""

import ast
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

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


def checkout() -> Path | None:
    """The root of the source checkout this package runs from, or None if it was installed from a wheel."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def available() -> list[Path]:
    """The walkthrough's notebooks in reading order: the checkout's, or else the copies in the package."""
    return sorted(((checkout() or PACKAGE) / "notebooks").glob("*.ipynb"))


def find(name: str | Path) -> Path:
    """The notebook called `name`: "05_few_shot_training", its number "05", or the path of any .ipynb file.

    Raises FileNotFoundError naming the notebooks there are.
    """
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name).resolve()
    for path in available():
        if str(name) in (path.stem, path.name, path.stem.split("_")[0]):
            return path
    names = ", ".join(path.stem for path in available()) or "none at all"
    raise FileNotFoundError(f"There is no notebook {str(name)!r}; there are {names}.")


def record(name: str, value: Any) -> None:
    """Record a metric as data in the output of the cell that calls this; nothing is shown.

    `value` is anything JSON holds, or a NumPy or torch scalar. Raises ValueError for all else, NaN among it.
    """
    value = value.item() if hasattr(value, "item") else value
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Metric {name!r} is {value!r}, which JSON cannot hold; record finite numbers or text."
        ) from error
    display({METRIC_MIME: {"name": name, "value": value}}, raw=True)


def metrics(path: str | Path) -> dict[str, Any]:
    """The metrics an executed notebook recorded, by name and in order; the last value of a repeated one."""
    outputs = (output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", ()))
    recorded = (output["data"][METRIC_MIME] for output in outputs if METRIC_MIME in output.get("data", ()))
    return {metric["name"]: metric["value"] for metric in recorded}


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells as they were written: all but the one papermill injects parameters with."""
    return [
        cell
        for cell in nb.cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", ())
    ]


def syntax(source: str) -> list[ast.AST]:
    """Every node of a cell's code, and none where it is no Python, as with a magic."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about a cell is its own business
            return list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return []


def code_hash(nb: NotebookNode) -> str:
    """sha256 of a notebook's code: the same before and after execution, whatever was injected."""
    return hashlib.sha256(json.dumps([cell.source for cell in code_cells(nb)]).encode()).hexdigest()


def execute(
    name: str | Path,
    out_dir: str | Path,
    profile: str = "standard",
    parameters: Mapping[str, Any] | None = None,
    on_cell: Callable[[], None] | None = None,
) -> Path:
    """Execute a notebook with papermill and return the path of the executed copy in `out_dir`.

    The kernel runs this very interpreter, in `out_dir`. `profile` and `parameters` replace values of the cell
    tagged `parameters`; those that equal what stands there inject nothing, so a default run is the source and
    its outputs. A notebook that declares no profile runs without one. `on_cell` is called after each code cell.

    Raises NotebookError if a cell fails, the copy then holding what came before; ValueError for a parameter
    that the notebook does not declare, and for an `out_dir` that holds the notebook itself.
    """
    source, out_dir = find(name), Path(out_dir).resolve()
    target = out_dir / source.name
    if target == source:
        raise ValueError(f"{out_dir} holds the notebook {source.name} itself; name another folder for the results.")
    changed = _changed(source, {"profile": profile, **(parameters or {})})
    out_dir.mkdir(parents=True, exist_ok=True)
    executed = 0

    def after_cell(**_: Any) -> None:
        nonlocal executed
        executed += 1
        if on_cell:
            on_cell()

    try:
        papermill.execute_notebook(
            source,
            target,
            changed,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=out_dir,
            kernel_manager_class=Kernel,
            on_cell_executed=after_cell,
        )
    except (PapermillExecutionError, RuntimeError) as error:
        _finish(target, completed=False)
        if isinstance(error, PapermillExecutionError):
            cell, what = error.exec_count, f"{error.ename}: {_first_line(error.evalue)}"
        else:  # nbclient's word for a kernel that died; the cell it died in never returned
            cell, what = executed + 1, "the end of its kernel, most often for want of memory"
        raise NotebookError(
            f"{source.stem} stopped in cell [{cell}] with {what}; what ran until then is in {target}."
        ) from error
    _finish(target, completed=True)
    return target


def declared_parameters(nb: NotebookNode) -> dict[str, Any]:
    """Name and value of every parameter that the cell tagged `parameters` assigns; `...` if no literal."""
    declared: dict[str, Any] = {}
    for cell in code_cells(nb):
        if "parameters" not in cell.metadata.get("tags", ()):
            continue
        for statement in ast.parse(cell.source).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                try:
                    value = ast.literal_eval(statement.value)
                except ValueError:
                    value = ...
                declared[statement.targets[0].id] = value
    return declared


def _changed(source: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the wanted parameters whose value is not the one written in the notebook."""
    declared = declared_parameters(nbformat.read(source, as_version=4))
    unknown = [name for name in wanted if name not in declared and name != "profile"]
    if unknown:
        names = ", ".join(declared) or "none"
        raise ValueError(f"{source.stem} has no parameter {unknown[0]!r}; those it has: {names}.")
    return {name: value for name, value in wanted.items() if name in declared and declared[name] != value}


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]


def _finish(path: Path, completed: bool) -> None:
    """Strip an executed notebook of what is of its run only; stamp a completed one with the code's hash."""
    nb = nbformat.read(path, as_version=4)
    widgets = nb.metadata.get("widgets")
    nb.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for cell in nb.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        if cell.cell_type == "code":
            cell.outputs = _settled(cell.outputs)
    if widgets and any(WIDGET_MIME in output.get("data", ()) for cell in code_cells(nb) for output in cell.outputs):
        nb.metadata.widgets = widgets
    if completed:
        nb.metadata.radapter_lite = {"code_hash": code_hash(nb)}
    write_text(path, nbformat.writes(nb) + "\n")


def _settled(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """A cell's outputs with each stream as a terminal would show it at the end: of progress bars, nothing is left.

    All of stderr becomes one output; stdout keeps its place between figures.
    """
    merged: list[NotebookNode] = []
    streams: dict[str, NotebookNode] = {}  # by name, the output that further text of a stream is added to
    for output in outputs:
        if output.output_type == "stream" and output.name in streams:
            streams[output.name].text += output.text
            continue
        if output.output_type == "stream":
            streams[output.name] = output
        else:
            streams.pop("stdout", None)
        merged.append(output)
    for output in merged:
        if output.output_type == "stream":
            output.text = final_screen(output.text)
    return [output for output in merged if output.output_type != "stream" or output.text.strip()]


def final_screen(text: str) -> str:
    r"""What a terminal shows in the end: carries out \r, and the cursor-up of nested tqdm bars."""
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\n|\r|\x1b\[A)", text):
        if part == "\n":
            row, column = row + 1, 0
            if row == len(lines):
                lines.append("")
        elif part == "\r":
            column = 0
        elif part == "\x1b[A":
            row = max(row - 1, 0)
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return "\n".join(line.rstrip() for line in lines)
