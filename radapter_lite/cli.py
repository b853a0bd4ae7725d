"""The command line: `radapter-lite run`, `lab`, `bench` and `doctor`."""

import argparse
import ast
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radapter_lite import __version__

PROFILES = ("smoke", "standard", "full")
FIRST = "00_start_here"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 after a mistake or a failure, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    from radapter_lite.notebook import NotebookError  # after --help, which need not wait for it

    try:
        return arguments.command(arguments)
    except (NotebookError, OSError, ValueError) as error:
        print(f"radapter-lite: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("radapter-lite: interrupted; what was finished is kept.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="radapter-lite",
        description="R-Adapter on a laptop: execute the walkthrough, open it, or check the installation.",
        epilog="example: radapter-lite run --profile smoke",
    )
    parser.add_argument("--version", action="version", version=f"radapter-lite {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="execute the walkthrough notebooks",
        description="Execute the walkthrough; notebooks, HTML and figures land in the output folder.",
        epilog="example: radapter-lite run --profile smoke --only 00 05 -p seed 1",
    )
    run.add_argument(
        "--profile", choices=PROFILES, default="standard", help="the size of what runs (standard)"
    )
    run.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="these notebooks alone, by number or name"
    )
    run.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        dest="parameters",
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebooks: seed, backbone, shots or figures_dir",
    )
    run.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where results go (./out)")
    run.add_argument(
        "--update",
        action="store_true",
        help="for maintainers: renew the checkout's notebooks/ and figures/ once all have succeeded",
    )
    run.set_defaults(command=_run)

    lab = commands.add_parser(
        "lab",
        help="open the walkthrough in JupyterLab",
        description="Open the first notebook in JupyterLab; an installed package copies them to --dir first.",
        epilog="example: radapter-lite lab -- --no-browser --port 9000",
    )
    lab.add_argument(
        "--dir",
        type=Path,
        default=Path("radapter-lite"),
        metavar="DIR",
        help="where the copies go; files already there are kept (./radapter-lite)",
    )
    lab.add_argument("jupyter", nargs="*", metavar="-- OPTIONS", help="options handed on to JupyterLab")
    lab.set_defaults(command=_lab)

    bench = commands.add_parser(
        "bench",
        help="repeat the long runs behind the notebooks' tables",
        description="Tune every method on every number of shots, several seeds, sweep each along alpha, and add "
        "the rows to a CSV file. Rows already there are kept, so the command can be interrupted.",
        epilog="example: radapter-lite bench --seeds 2 --shots 4 16 --out few_shot.csv",
    )
    bench.add_argument("--seeds", type=int, help="how many seeds (5 for 16 shots, 3 for fewer)")
    bench.add_argument(
        "--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="images a class (1 2 4 8 16)"
    )
    bench.add_argument(
        "--out", type=Path, default=Path("out/few_shot.csv"), metavar="CSV", help="where (out/few_shot.csv)"
    )
    bench.add_argument(
        "--search", action="store_true", help="instead, search both methods' settings on ID validation images"
    )
    bench.add_argument(
        "--table", action="store_true", help="run nothing; print the README's table from the saved results"
    )
    bench.set_defaults(command=_bench)

    doctor = commands.add_parser(
        "doctor",
        help="check the installation",
        description="Tell what is installed, what is missing, and whether the embedded assets load.",
        epilog="example: radapter-lite doctor",
    )
    doctor.set_defaults(command=_doctor)
    return parser


def _run(arguments: argparse.Namespace) -> int:
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
    quiet = True if os.environ.get("CI") else None  # None: a bar on terminals only
    with tqdm(total=cells, unit="cell", disable=quiet, bar_format="{l_bar}{bar}| {elapsed}") as bar:
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


def _bench(arguments: argparse.Namespace) -> int:
    import pandas as pd

    from radapter_lite import bench
    from radapter_lite.backbones import load_clip
    from radapter_lite.data import load_images
    from radapter_lite.evaluation import mean_and_interval, summarize

    if arguments.table:
        print(bench.results_table(bench.load_results()))
        return 0
    if arguments.search:
        found = bench.search(load_clip(), load_images(), arguments.out.with_name("search.csv"))
        print(found.round(4).to_string(index=False))
        return 0
    bench.run(load_clip(), load_images(), arguments.out, arguments.seeds, arguments.shots)
    table = pd.read_csv(arguments.out).query("split == 'test' and alpha == 1")
    by_seed = summarize(table, ["method", "shots", "seed"])
    print(mean_and_interval(by_seed, ["method", "shots"]).round(1).to_string(index=False))
    print(f"\nAll rows are in {arguments.out.resolve()}.")
    return 0


def _lab(arguments: argparse.Namespace) -> int:
    from jupyterlab.labapp import LabApp

    from radapter_lite import notebook

    folder = notebook.find(FIRST).parent
    if notebook.checkout() is None:
        folder = _copy_notebooks(arguments.dir.resolve() / "notebooks")
    LabApp.launch_instance([str(folder / f"{FIRST}.ipynb"), *arguments.jupyter])
    return 0


def _copy_notebooks(folder: Path) -> Path:
    """Copy the packaged notebooks into `folder`, but never over a file the reader may have edited."""
    from radapter_lite import notebook

    folder.mkdir(parents=True, exist_ok=True)
    for source in notebook.available():
        if not (folder / source.name).exists():
            shutil.copyfile(source, folder / source.name)
    print(f"The notebooks are in {folder}; edit them freely.")
    return folder


def _doctor(_: argparse.Namespace) -> int:
    from radapter_lite.doctor import examine

    return examine()


if __name__ == "__main__":
    sys.exit(main())
