"""`radapter-lite sweep`: a saved delta along α, on a folder of images."""

import argparse
from pathlib import Path

from radapter_lite.commands import Commands, options, report


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "sweep",
        help="measure a saved delta along alpha",
        description="Measure a saved delta on the folder's test images, at several values of alpha. Ends with a table, "
        "a CSV file and a figure beside it.",
        epilog="example: radapter-lite sweep out/photos/delta photos --alphas 0 0.2 0.4 0.6 0.8 1",
    )
    options.add_delta(parser)
    options.add_images(parser)
    parser.add_argument(
        "--alphas",
        type=float,
        nargs="+",
        default=[number / 10 for number in range(11)],
        metavar="A",
        help="from 0 (zero-shot) to 1 (tuned); eleven of them if left out",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="CSV",
        help="where (sweep_FOLDER.csv beside the delta); the figure goes beside it",
    )
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    from radapter_lite.alpha import scales
    from radapter_lite.evaluation import sweep

    alphas = sorted(set(arguments.alphas))
    for alpha in alphas:
        scales(alpha, [])  # refuses what is out of range, before anything is loaded
    delta, backbone = options.load_delta(arguments)
    # The images that were trained on are known to be no test images only in the domain that was tuned on.
    about = delta.meta.get("data", {})
    images = options.load_images(arguments, about.get("id_domain"))
    out = arguments.out or arguments.delta.with_name(f"sweep_{images.name}.csv")
    if out.suffix != ".csv" or out.is_dir():
        raise ValueError(f"{out} is no name for a table: expected a file ending in .csv for --out")
    test = images.select(split="test")
    options.read_all(test, backbone)
    swept = sweep(backbone, delta, test, alphas)
    report.write(swept, out.with_suffix(""), images.id_domain)
    print(f"Accuracy (%) on test images of {images.name}\n{report.table(swept)}\n")
    print(f"All rows are in {out.resolve()}, and the figure is beside it.")
    return 0
