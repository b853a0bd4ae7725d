"""`radapter-lite sweep`: measure what was tuned along alpha.

Measure what tune saved on the folder's test images, at several values of alpha; images that it was trained on are left
out. Ends with a table, CSV files, figures and a page. A method without an alpha has zero-shot at 0 and itself at 1.

example: radapter-lite sweep out/photos/tuned photos --alphas 0 0.2 0.4 0.6 0.8 1
"""

import argparse
from pathlib import Path

from radapter_lite.commands import options

PARENTS = [options.TUNED, options.IMAGES]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alphas", type=float, nargs="+", metavar="A", help="from 0 to 1 (eleven of them)")
    parser.add_argument("--out", type=Path, metavar="CSV", help="where, figures beside it (TUNED's sweep_FOLDER.csv)")


def execute(arguments: argparse.Namespace) -> None:
    from radapter_lite.alpha import scales
    from radapter_lite.commands import report
    from radapter_lite.evaluation import examine
    from radapter_lite.tasks import as_task

    alphas = sorted(set(arguments.alphas)) if arguments.alphas else None
    for alpha in alphas or ():
        scales(alpha, [])  # refuses what is out of range, before anything is loaded
    tuned, backbone = options.load_tuned(arguments.tuned, arguments, options.device(arguments))
    about = tuned.meta.get("data", {})
    images, learned = options.load_images(arguments), about.get("id_domain")
    if not arguments.id and learned in images.domains:
        print(f"ID is {learned}, which was tuned on.")
        images = options.load_images(arguments, learned)
    elif not arguments.id and learned:
        print(f"ID is {images.id_domain}: {images.name} has no {learned}, which was tuned on.")
    out = arguments.out or arguments.tuned.with_name(f"sweep_{images.name}.csv")
    if out.suffix != ".csv" or out.is_dir():
        raise ValueError(f"{out} is no name for a table: expected a file ending in .csv for --out")
    test = images.test
    if about.get("images") == test.name:
        # A folder is divided anew when a file is added or another domain is ID: training images come among the others.
        seen = test.table["file"].isin(about.get("training_images", ()))
        if seen.all():
            raise ValueError(f"every test image was trained on of {test.name}: add images to measure on")
        if seen.any():
            print(f"Test images left out, for they were trained on: {seen.sum()}.")
        test = test.take((~seen).to_numpy().nonzero()[0])
    test = test.readable(backbone.preprocess)
    metric, (swept, answers) = as_task(test).metric, examine(backbone, tuned, test, alphas)
    report.write(swept, answers, out.with_suffix(""), images.id_domain, metric)
    print(f"{metric.capitalize()} (%) on test images of {images.name}\n{report.table(swept, metric)}\n")
    print(f"{report.sentences(answers)}\n")
    print(f"All rows are in {out.resolve()}, and figures beside it; {out.stem}.html shows everything.")
