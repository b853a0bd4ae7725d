"""`radapter-lite bench`: repeat the long runs behind the tables."""

import argparse
from pathlib import Path

from radapter_lite.commands import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="repeat the long runs behind the notebooks' tables",
        description="Tune every method on every number of shots, several seeds, sweep each along alpha, and add "
        "the rows to a CSV file. Rows already there are kept, so the command can be interrupted.",
        epilog="example: radapter-lite bench --seeds 2 --shots 4 16 --out few_shot.csv",
    )
    parser.add_argument("--seeds", type=int, help="how many seeds (5 for 16 shots, 3 for fewer)")
    parser.add_argument(
        "--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="images a class (1 2 4 8 16)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/few_shot.csv"), metavar="CSV", help="where (out/few_shot.csv)"
    )
    parser.add_argument(
        "--search", action="store_true", help="instead, search both methods' settings on ID validation images"
    )
    parser.add_argument(
        "--table", action="store_true", help="run nothing; print the README's table from the saved results"
    )
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
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
