"""`radapter-lite bench`: repeat the long runs behind the tables."""

import argparse
from pathlib import Path

from radapter_lite.commands import Commands

# Each part, and what it can be told beside --out.
PARTS = {
    "search": ("methods", "shots"),
    "few_shot": ("methods", "shots", "seeds"),
    "severity": ("methods", "seeds"),
    "base_to_novel": ("methods", "seeds"),
    "retrieval": ("methods", "seeds"),
    "ablations": ("seeds",),
    "toolbox": ("seeds",),
    "table": (),
}


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="repeat the long runs behind the notebooks' tables",
        description="search: settings of every method, on ID validation images. few_shot: every method over shots and "
        "seeds, measured along alpha. severity: the same on photographs near and far. base_to_novel: half of the "
        "classes tuned on, and the other half. retrieval: captions and images found for each other. ablations: "
        "R-Adapter without its parts. toolbox: few-shot tricks, alone and together. Each adds its rows to PART.csv "
        "in the output folder and keeps those that are there, so it can be interrupted. table: run nothing; print "
        "README's tables, and who is ahead of R-Adapter, from few_shot.csv in the output folder, or else from the "
        "results that came with this package.",
        epilog="example: radapter-lite bench few_shot --methods R-Adapter FLYP --shots 4 16 --seeds 2",
    )
    parser.add_argument("part", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--id",
        default="outline",
        metavar="DOMAIN",
        help="outline or camera: what is tuned on (outline; for severity camera)",
    )
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="these alone (all)")
    parser.add_argument("--shots", type=int, nargs="+", metavar="N", help="images a class (1 2 4 8 16)")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds (5)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the CSV files go (./out/results), or are for table"
    )
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    from radapter_lite import bench
    from radapter_lite.backbone import load_clip
    from radapter_lite.data import load_images
    from radapter_lite.methods.registry import METHODS, find_method
    from radapter_lite.statistics import mean_and_interval, summarize

    _check(arguments)
    if arguments.part == "table":
        results = bench.load_results(folder=arguments.out or bench.RESULTS, id_domain=arguments.id)
        print(f"{bench.results_table(results)}\n\n{bench.who_is_ahead(results)}")
        return 0
    named = arguments.methods or list(METHODS)
    methods = named if arguments.part == "retrieval" else [find_method(name).name for name in named]
    if arguments.part == "severity":
        arguments.id = "camera"
    shots = arguments.shots or list(bench.SHOTS)
    seeds = arguments.seeds or bench.SEEDS
    path = (arguments.out or Path("out/results")) / f"{arguments.part}.csv"
    clip, images = load_clip(), load_images(id_domain=arguments.id)
    if arguments.part == "search":
        print(bench.run_search(clip, images, path, methods, shots).to_string(index=False))
    elif arguments.part == "ablations":
        print(bench.run_ablations(clip, images, path, seeds).round(1).to_string(index=False))
    elif arguments.part == "toolbox":
        print(bench.run_toolbox(clip, images, path, seeds).round(1).to_string(index=False))
    else:
        asked = arguments.methods and methods
        if arguments.part == "severity":
            bench.run_severity(clip, path, asked, seeds)
            by = ["severity", "method"]
        elif arguments.part == "base_to_novel":
            bench.run_base_to_novel(clip, images, path, asked, seeds)
            by = ["part", "method"]
        elif arguments.part == "retrieval":
            bench.run_retrieval(clip, images, path, asked, seeds)
            by = ["texts", "method"]
        else:
            bench.run_few_shot(clip, images, path, methods, shots, seeds)
            by = ["method", "shots"]
        metric = "recall" if arguments.part == "retrieval" else "accuracy"
        rows = bench.read_rows(path).query("split == 'test' and not (alpha < 1)")  # α = 1, and methods without
        table = mean_and_interval(summarize(rows, [*by, "seed"], metric), by)
        print(table.round(1).to_string(index=False))
    print(f"\nAll rows are in {path.resolve()}.")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise ValueError for an option that the part would not heed, and for a number of seeds below 1."""
    for option in ("methods", "shots", "seeds"):
        if getattr(arguments, option) is not None and option not in PARTS[arguments.part]:
            raise ValueError(f"bench {arguments.part} takes no --{option}: leave it out")
    if arguments.seeds is not None and arguments.seeds < 1:
        raise ValueError(f"--seeds was given {arguments.seeds}: expected a number of 1 or more")
