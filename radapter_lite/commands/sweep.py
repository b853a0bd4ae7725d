"""`radapter-lite sweep`: what was tuned, along α where it has one, on a folder of images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radapter_lite.commands import Commands, options

if TYPE_CHECKING:
    from radapter_lite.data import ImageSet


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "sweep",
        help="measure what was tuned along alpha",
        description="Measure what tune saved on the folder's test images, at several values of alpha; images that it "
        "was trained on are left out. Ends with a table, CSV files, figures and a page. A method without an alpha "
        "has zero-shot at 0 and itself at 1.",
        epilog="example: radapter-lite sweep out/photos/tuned photos --alphas 0 0.2 0.4 0.6 0.8 1",
    )
    options.add_tuned(parser)
    options.add_images(parser)
    parser.add_argument("--alphas", type=float, nargs="+", metavar="A", help="from 0 to 1 (eleven of them)")
    parser.add_argument("--out", type=Path, metavar="CSV", help="where, figures beside it (TUNED's sweep_FOLDER.csv)")


def execute(arguments: argparse.Namespace) -> int:
    from radapter_lite.alpha import scales
    from radapter_lite.commands import report
    from radapter_lite.evaluation import examine
    from radapter_lite.tasks import as_task

    alphas = sorted(set(arguments.alphas)) if arguments.alphas else None
    for alpha in alphas or ():
        scales(alpha, [])  # refuses what is out of range, before anything is loaded
    tuned, backbone = options.load_tuned(arguments.tuned, arguments, options.device(arguments))
    about = tuned.meta.get("data", {})
    images = _images(arguments, about.get("id_domain"))
    out = arguments.out or arguments.tuned.with_name(f"sweep_{images.name}.csv")
    if out.suffix != ".csv" or out.is_dir():
        raise ValueError(f"{out} is no name for a table: expected a file ending in .csv for --out")
    test = _unseen(images.select(split="test"), about).readable(backbone.preprocess)
    metric, (swept, answers) = as_task(test).metric, examine(backbone, tuned, test, alphas)
    report.write(swept, answers, out.with_suffix(""), images.id_domain, metric)
    print(f"{metric.capitalize()} (%) on test images of {images.name}\n{report.table(swept, metric)}\n")
    print(f"{report.sentences(answers)}\n")
    print(f"All rows are in {out.resolve()}, and figures beside it; {out.stem}.html shows everything.")
    return 0


def _images(arguments: argparse.Namespace, tuned: str | None) -> "ImageSet":
    """The folder's images; ID is what --id says, else the domain that was tuned on, else the folder's own."""
    images = options.load_images(arguments)
    if not arguments.id and tuned in images.domains:
        print(f"ID is {tuned}, which was tuned on.")
        return options.load_images(arguments, tuned)
    if not arguments.id and tuned:
        print(f"ID is {images.id_domain}: {images.name} has no {tuned}, which was tuned on.")
    return images


def _unseen(test: "ImageSet", about: dict[str, Any]) -> "ImageSet":
    """The test images without those that were trained on, if this folder was tuned on.

    A folder is divided anew when a file is added to it or another domain is ID, so training images come among them.
    """
    if about.get("images") != test.name:
        return test
    trained = set(about.get("training_images", ()))
    rows = [row for row, file in enumerate(test.table["file"]) if file not in trained]
    if not rows:
        raise ValueError(f"every test image was trained on of {test.name}: add images to measure on")
    if len(rows) < len(test):
        print(f"Test images left out, for they were trained on: {len(test) - len(rows)}.")
    return test.take(rows)
