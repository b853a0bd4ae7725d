"""`radapter-lite lab`: open the walkthrough in JupyterLab.

Open the first notebook in JupyterLab; an installed package copies them to --dir first.

example: radapter-lite lab -- --no-browser --port 9000
"""

import argparse
import shutil
from pathlib import Path

FIRST = "00_start_here"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, metavar="DIR", help="for the copies; files there stay (./radapter-lite)")
    parser.add_argument("--exercises", action="store_true", help="blanks for you to fill in, with checks and solutions")
    parser.add_argument("jupyter", nargs="*", metavar="-- OPTIONS", help="options handed on to JupyterLab")


def execute(arguments: argparse.Namespace) -> int:
    import nbformat
    from jupyterlab.labapp import LabApp

    from radapter_lite.files import make_folder, write_text
    from radapter_lite.publish import notebook
    from radapter_lite.publish.exercises import with_blanks

    copies = arguments.exercises or notebook.checkout() is None
    if arguments.dir and not copies:
        raise ValueError("--dir is for copies: in a checkout, name it with --exercises, or leave it out")
    folder = notebook.find(FIRST).parent
    if copies:
        place = arguments.dir or Path("out" if notebook.checkout() else "radapter-lite")
        folder = make_folder(place.resolve() / ("exercises" if arguments.exercises else "notebooks"))
        for source in [*notebook.available(), *notebook.find(FIRST).parent.glob("*.md")]:
            if not (target := folder / source.name).exists():  # never over a file the reader may have edited
                if arguments.exercises and source.suffix == ".ipynb":
                    write_text(target, nbformat.writes(with_blanks(nbformat.read(source, as_version=4))))
                else:
                    shutil.copyfile(source, target)
        print(f"The notebooks are in {folder}; edit them freely.")
    LabApp.launch_instance([str(folder / f"{FIRST}.ipynb"), *arguments.jupyter])
    return 0
