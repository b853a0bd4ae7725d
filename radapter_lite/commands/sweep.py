"""`radapter-lite sweep`: a saved delta along α, on a folder of images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radapter_lite.commands import Commands, options, report

if TYPE_CHECKING:
    from radapter_lite.data import ImageSet


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "sweep",
        help="measure a saved delta along alpha",
        description="Measure a saved delta on the folder's test images, at several values of alpha; images that it was "
        "trained on are left out. Ends with a table, a CSV file and a figure beside it.",
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
    delta, backbone = options.load_delta(arguments, options.device(arguments))
    about = delta.meta.get("data", {})
    images = _images(arguments, about.get("id_domain"))
    out = arguments.out or arguments.delta.with_name(f"sweep_{images.name}.csv")
    if out.suffix != ".csv" or out.is_dir():
        raise ValueError(f"{out} is no name for a table: expected a file ending in .csv for --out")
    test = _unseen(images.select(split="test"), about)
    options.read_all(test, backbone)
    swept = sweep(backbone, delta, test, alphas)
    report.write(swept, out.with_suffix(""), images.id_domain)
    print(f"Accuracy (%) on test images of {images.name}\n{report.table(swept)}\n")
    print(f"All rows are in {out.resolve()}, and the figure is beside it.")
    return 0


def _images(arguments: argparse.Namespace, tuned: str | None) -> "ImageSet":
    """The folder's images; ID is what --id says, else the domain that was tuned on, else the folder's own."""
    images = options.load_images(arguments)
    if arguments.id or tuned is None:
        return images
    if tuned not in images.domains:
        print(f"ID is {images.id_domain}: {images.name} has no {tuned}, which the delta was tuned on.")
        return images
    print(f"ID is {tuned}, which the delta was tuned on.")
    return options.load_images(arguments, tuned)


def _unseen(test: "ImageSet", about: dict[str, Any]) -> "ImageSet":
    """The test images without those that the delta was trained on, if it was tuned on this folder.

    A folder is divided anew when a file is added to it or another domain is ID, so training images come among them.
    """
    if about.get("images") != test.name:
        return test
    trained = set(about.get("training_images", ()))
    rows = [row for row, file in enumerate(test.table["file"]) if file not in trained]
    if not rows:
        raise ValueError(
            f"the delta was trained on every test image of {test.name}: add images to measure on"
        )
    if len(rows) < len(test):
        print(f"Test images left out, for the delta was trained on them: {len(test) - len(rows)}.")
    return test.take(rows)
