"""`radapter-lite bench`: repeat the long runs behind the notebooks' tables.

Each adds its rows to PART.csv in the output folder and keeps those that are there, so it can be interrupted.

example: radapter-lite bench few_shot --methods R-Adapter FLYP --shots 4 16 --seeds 2
"""

import argparse
import inspect
from pathlib import Path

# Each part, and what is said of it.
PARTS = {
    "search": "settings of every method, on ID validation images",
    "few_shot": "every method over shots and seeds, along alpha",
    "severity": "the same on photographs near and far",
    "full_data": "the same on thousands of photographs",
    "by_image": "the answer to every test image, for intervals over images",
    "base_to_novel": "half of the classes tuned on, the other half, and another data set",
    "retrieval": "captions and images found for each other",
    "segmentation": "scenes of several drawings, each painted by its name",
    "toolbox": "few-shot tricks, alone and together",
    "ablations": "R-Adapter without its parts",
    "neighbours": "what R-Adapter has given to others, and more time",
    "speed": "a training step, its memory, a merged model, a sweep and the slider, each beside its peers",
    "table": "run nothing; print README's tables, from few_shot.csv in --out or else from what came with this package",
    "claims": "run nothing; print the paper's claims with our numbers, from the CSV files in --out or this package's",
    "overview": "run nothing; print every task in one table, from the CSV files in --out or else from this package's",
}


def add(parser: argparse.ArgumentParser) -> None:
    said = " ".join(f"{part}: {what}." for part, what in PARTS.items())
    parser.description = f"{said} {parser.description}"
    parser.add_argument("part", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--id", metavar="DOMAIN", help="outline or camera: what is tuned on (outline)")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="these alone (the part's own)")
    parser.add_argument("--shots", type=int, nargs="+", metavar="N", help="images a class (1 2 4 8 16)")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds (the part's own)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="runs at once, each in a process (1)")
    where.add_argument("--dask", metavar="ADDRESS", help="make the runs on a Dask cluster: tcp://HOST:PORT")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the CSV files go, or are (./out/results)")


def execute(arguments: argparse.Namespace) -> None:
    from radapter_lite import bench
    from radapter_lite.backbone import load_clip
    from radapter_lite.data import load_images

    run = bench.PARTS.get(arguments.part)
    takes = set(inspect.signature(run).parameters) if run else {"images"} if arguments.part == "table" else set()
    options = ("methods", "shots", "seeds", "id", "jobs", "dask")
    given = {name: value for name in options if (value := getattr(arguments, name)) is not None}
    for option, value in given.items():
        alone = arguments.part == "speed" and option in ("jobs", "dask")  # what it compares takes turns
        if alone or {"id": "images", "jobs": "path", "dask": "path"}.get(option, option) not in takes:
            raise ValueError(f"bench {arguments.part} takes no --{option}: leave it out")
        if option in ("seeds", "jobs") and value < 1:
            raise ValueError(f"--{option} was given {value}: expected a number of 1 or more")
    id_domain, saved = arguments.id or "outline", arguments.out or bench.RESULTS
    if arguments.part in ("overview", "claims"):
        table, show = getattr(bench, arguments.part), getattr(bench, f"{arguments.part}_table")
        print(show(table(saved)))
    elif run is None:
        results = bench.load_results(folder=saved, id_domain=id_domain)
        print(f"{bench.results_table(results)}\n\n{bench.who_is_ahead(results)}")
    else:
        path = Path(arguments.out or "out/results", f"{arguments.part}.csv")
        asked = {name: given[name] for name in options[:3] if name in given}
        with bench.workers(arguments.jobs or 1, arguments.dask):
            images = {"images": load_images(id_domain=id_domain)} if "images" in takes else {}
            table = run(load_clip(), **images, path=path, **asked)
        print(f"{table.round(1).to_string(index=False)}\n\nAll rows are in {path.resolve()}.")
