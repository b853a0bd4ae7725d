"""`radapter-lite run`: execute the walkthrough notebooks.

Execute the walkthrough; notebooks, HTML and figures land in the output folder.

example: radapter-lite run --profile smoke --only 00 05 -p seed 1
"""

import argparse
import difflib
import logging
import time
from pathlib import Path
from typing import Any

from radapter_lite.commands import options

PROFILES = ("smoke", "standard", "full")
# Parameters that may be paths; the kernels run in another folder than the one they are given in.
PATHS = {"data": options.full_folder, "pretrained": options.full_weights}


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", choices=PROFILES, default="standard", help="the size of what runs (standard)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these notebooks, by number or name")
    told = "set a parameter in the notebooks that have it: seed, backbone, pretrained, data, id_domain, shots, method, "
    told += "photo, processes or figures_dir"
    parser.add_argument("-p", dest="parameters", help=told, **options.NAMED)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where results go (./out)")


def execute(arguments: argparse.Namespace) -> None:
    import nbformat
    import pandas as pd

    from radapter_lite.progress import progress
    from radapter_lite.publish import notebook
    from radapter_lite.publish.html import to_html

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what fails is told below, in one sentence
    sources = [notebook.find(name) for name in arguments.only] or notebook.available()
    declared = [notebook.declared_parameters(nbformat.read(source, as_version=4)) for source in sources]
    parameters = {name: options.parse_value(PATHS.get(name, str)(text)) for name, text in arguments.parameters}
    known = {name for names in declared for name in names}
    if name := next((name for name in parameters if name not in known), None):  # told before anything long begins
        nearest = ", ".join(difflib.get_close_matches(name, known, n=4, cutoff=0.4) or sorted(known) or ["none"])
        raise ValueError(f"No notebook to be run has a parameter {name!r}; the nearest names are {nearest}.")

    out = arguments.out
    measured: dict[tuple[str, str], Any] = {}
    for source in (bar := progress(sources, unit="notebook")):
        started = time.perf_counter()
        bar.set_description(source.stem)
        done = notebook.execute(source, out / "notebooks", arguments.profile, parameters)
        to_html(done, out / "html" / f"{source.stem}.html")
        measured |= {(source.stem, name): value for name, value in notebook.metrics(done).items()}
        bar.write(f"{source.stem}: {time.perf_counter() - started:.0f} s")

    told = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in measured.items()}
    with pd.option_context("display.max_colwidth", 40):
        print(f"\n{pd.Series(told).to_string() if told else 'No metrics were recorded.'}\n")
    print(f"Read {out / 'html' / sources[0].stem}.html first.")
    print(f"Notebooks, HTML and figures are in {out.resolve()}.")
