"""`radapter-lite run`: execute the walkthrough."""

import argparse
import ast
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from radapter_lite.commands import Commands

PROFILES = ("smoke", "standard", "full")


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "run",
        help="execute the walkthrough notebooks",
        description="Execute the walkthrough; notebooks, HTML and figures land in the output folder.",
        epilog="example: radapter-lite run --profile smoke --only 00 05 -p seed 1",
    )
    parser.add_argument(
        "--profile", choices=PROFILES, default="standard", help="the size of what runs (standard)"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="these notebooks alone, by number or name"
    )
    parser.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        dest="parameters",
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebooks: seed, backbone, shots or figures_dir",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="where results go (./out)"
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="for maintainers: renew the checkout's notebooks/ and figures/ once all have succeeded",
    )
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    import nbformat
    from tqdm import tqdm

    from radapter_lite import notebook
    from radapter_lite.notebook_html import to_html

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what fails is told below, in one sentence
    sources = [notebook.find(name) for name in arguments.only] or notebook.available()
    if not sources:
        raise FileNotFoundError("This installation holds no notebooks; install radapter-lite again.")
    out, parameters = arguments.out, {name: _literal(value) for name, value in arguments.parameters}
    if arguments.update:
        out = _staging(arguments)

    measured: dict[str, dict[str, Any]] = {}
    cells = sum(len(notebook.code_cells(nbformat.read(source, as_version=4))) for source in sources)
    with tqdm(total=cells, unit="cell", bar_format="{l_bar}{bar}| {elapsed}") as bar:
        for source in sources:
            started = time.perf_counter()
            bar.set_description(source.stem)
            done = notebook.execute(
                source, out / "notebooks", arguments.profile, parameters, on_cell=lambda: bar.update(1)
            )
            to_html(done, out / "html" / f"{source.stem}.html")
            measured[source.stem] = notebook.metrics(done)
            tqdm.write(f"{source.stem}: {time.perf_counter() - started:.0f} s")

    print(f"\n{_table(measured)}\n")
    if arguments.update:
        _renew(out)
    else:
        print(f"Read {out / 'html' / sources[0].stem}.html first.")
        print(f"Notebooks, HTML and figures are in {out.resolve()}.")
    return 0


def _literal(text: str) -> Any:
    """A number, list or quoted text as Python writes it; anything else is text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _staging(arguments: argparse.Namespace) -> Path:
    """An empty folder that --update fills before it touches the checkout."""
    from radapter_lite.notebook import checkout

    root = checkout()
    if root is None:
        raise ValueError(
            "--update renews the notebooks of a source checkout, and this is an installed package."
        )
    if arguments.profile != "standard" or arguments.parameters:
        raise ValueError(
            "--update keeps what the notebooks' own parameters give; leave out --profile and -p."
        )
    staging = root / "out" / "update"
    shutil.rmtree(staging, ignore_errors=True)
    return staging


def _renew(staging: Path) -> None:
    """Copy executed notebooks and figures into the checkout, now that all of them have succeeded."""
    from radapter_lite.notebook import checkout

    root = checkout()
    assert root is not None  # _staging has seen to it
    for folder in ("notebooks", "figures"):
        if (staging / folder).is_dir():
            shutil.copytree(staging / folder, root / folder, dirs_exist_ok=True)
            print(f"Renewed {root / folder}.")


def _table(measured: dict[str, dict[str, Any]]) -> str:
    """The recorded metrics as lines of text: notebook, metric, value."""
    rows = [
        (stem, name, _short(value)) for stem, metrics in measured.items() for name, value in metrics.items()
    ]
    if not rows:
        return "No metrics were recorded."
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{stem:<{widths[0]}}  {name:<{widths[1]}}  {value:>{widths[2]}}" for stem, name, value in rows
    )


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
