"""`radapter-lite segment`: paint an image by names of your own.

Find regions in an image, give each the likeliest of some names, and write the image with a coloured mask and a legend.
What is like none of them is left as it is.

example: radapter-lite segment desk.jpg --names cup key 'alarm clock' --delta out/photos/tuned
"""

import argparse
from pathlib import Path

from radapter_lite.commands import options

PARENTS = [options.ALPHA, options.BACKBONE]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a file")
    parser.add_argument("--names", nargs="+", required=True, metavar="NAME", help="two class names or more")
    parser.add_argument("--delta", type=Path, metavar="TUNED", help="what tune saved (nothing: zero-shot)")
    parser.add_argument("--out", type=Path, metavar="PNG", help="where (IMAGE_segments.png)")


def execute(arguments: argparse.Namespace) -> None:
    import matplotlib.pyplot as plt
    import numpy as np

    from radapter_lite.app.uploads import parse_class_names
    from radapter_lite.backbone import load_clip
    from radapter_lite.data.readers import read_file
    from radapter_lite.evaluation import segment
    from radapter_lite.files import whole
    from radapter_lite.view.segmentation import plot_overlay

    names, alpha = parse_class_names("\n".join(arguments.names)), options.parse_alpha(arguments.alpha)
    out = arguments.out or arguments.image.with_name(f"{arguments.image.stem}_segments.png")
    if out.suffix != ".png" or out.is_dir():
        raise ValueError(f"{out} is no name for a picture: expected a file ending in .png for --out")
    image, device = read_file(arguments.image.parent, arguments.image.name), options.device(arguments)
    if arguments.delta:
        tuned, clip = options.load_tuned(arguments.delta, arguments, device)
    else:
        name, prompts = arguments.backbone or "picto", options.prompts(arguments)
        tuned, clip = None, load_clip(name, arguments.pretrained, device=device, prompts=prompts)
    labels = segment(clip, image, names, tuned, alpha)
    figure, axis = plt.subplots(figsize=(7, 5.4))
    shares = plot_overlay(axis, np.asarray(image), labels, names)
    if shares:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    with whole(out) as temporary:
        figure.savefig(temporary, format="png", dpi=160, bbox_inches="tight")
    told = ", ".join(f"{name} {share:.1f}%" for name, share in shares.items()) or "none of the names"
    print(f"{told}; the rest, {100 * (labels < 0).mean():.1f}%, is ground.\nThe picture is {out.resolve()}.")
