"""`radapter-lite lab`: open the walkthrough in JupyterLab."""

import argparse
import shutil
from pathlib import Path

from radapter_lite.commands import Commands

FIRST = "00_start_here"


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "lab",
        help="open the walkthrough in JupyterLab",
        description="Open the first notebook in JupyterLab; an installed package copies them to --dir first.",
        epilog="example: radapter-lite lab -- --no-browser --port 9000",
    )
    parser.add_argument("--dir", type=Path, metavar="DIR", help="for the copies; files there stay (./radapter-lite)")
    parser.add_argument("jupyter", nargs="*", metavar="-- OPTIONS", help="options handed on to JupyterLab")


def execute(arguments: argparse.Namespace) -> int:
    from jupyterlab.labapp import LabApp

    from radapter_lite.files import make_folder
    from radapter_lite.publish import notebook

    folder = notebook.find(FIRST).parent
    if notebook.checkout() is None:
        folder = make_folder((arguments.dir or Path("radapter-lite")).resolve() / "notebooks")
        for source in notebook.available():
            if not (folder / source.name).exists():  # never over a file the reader may have edited
                shutil.copyfile(source, folder / source.name)
        print(f"The notebooks are in {folder}; edit them freely.")
    elif arguments.dir:
        raise ValueError(f"--dir is for an installed package; this is a checkout, with notebooks in {folder}")
    LabApp.launch_instance([str(folder / f"{FIRST}.ipynb"), *arguments.jupyter])
    return 0
