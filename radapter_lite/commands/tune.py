"""`radapter-lite tune`: R-Adapter on a folder of images, from the first image to a saved delta."""

import argparse
import hashlib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from radapter_lite.commands import Commands, options, report

if TYPE_CHECKING:
    from radapter_lite.data import ImageSet

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)  # drawn and saved
SHOWN = (0.0, 0.5, 1.0)  # in the table on the terminal
LARGEST_SEED = 2**32 - 1


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "tune",
        help="tune R-Adapter on a folder of images",
        description="Tune R-Adapter on a few images of each class, in one domain. Ends with a table, a figure and a "
        "saved delta in the output folder. Interrupted, it goes on when the same command is given again.",
        epilog="example: radapter-lite tune photos --id web --shots 16 --backbone ViT-B-32 "
        "--pretrained laion2b_s34b_b79k",
    )
    options.add_images(parser)
    parser.add_argument(
        "--shots", type=int, default=16, metavar="N", help="training images of each class (16)"
    )
    parser.add_argument(
        "--backbone", default="picto", metavar="NAME", help="picto or any open_clip model (picto)"
    )
    parser.add_argument(
        "--pretrained", metavar="WEIGHTS", help="its weights: a tag, or a checkpoint's path; picto needs none"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the drawn images and of training (0)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the images (the recommended)")
    options.add_device(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where results go (out/ and a name made of the settings)"
    )
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    from radapter_lite.backbone import load_clip
    from radapter_lite.delta import Delta
    from radapter_lite.evaluation import sweep
    from radapter_lite.methods.r_adapter import tune_r_adapter
    from radapter_lite.methods.recommended import recommended_r_adapter

    if not 0 <= arguments.seed <= LARGEST_SEED:
        raise ValueError(
            f"--seed was given {arguments.seed}: expected a whole number from 0 to {LARGEST_SEED}"
        )
    device = options.device(arguments)
    images = options.load_images(arguments)
    few = images.few_shot(arguments.shots, arguments.seed)
    test = images.select(split="test")
    run = _run(arguments, images)
    out = _folder(arguments, images, run)
    backbone = load_clip(arguments.backbone, arguments.pretrained, device=device)
    config = recommended_r_adapter(backbone, arguments.shots, arguments.seed)
    if arguments.epochs is not None:
        config = replace(config, training=replace(config.training, epochs=arguments.epochs))
    out.mkdir(parents=True, exist_ok=True)

    classes = few.table["class"].nunique()
    print(f"Tuning {backbone.name} on {len(few)} images of {classes} classes, ID {images.id_domain}.")
    if without := sorted(set(images.classes) - set(few.table["class"])):
        print(f"No training images: {', '.join(without)}.")
    elif len(few) < classes * arguments.shots:
        print(f"Some classes have fewer than {arguments.shots} training images, and give all they have.")
    checkpoint = out / "training.pt"
    if checkpoint.exists():
        print(f"Going on from {checkpoint}.")
    for each in (few, test):
        options.read_all(each, backbone)
    tuned = tune_r_adapter(backbone, few, config, checkpoint=checkpoint)

    about = {"images": images.name, "id_domain": images.id_domain, "shots": arguments.shots, "run": run}
    about["training_images"] = few.table[
        "file"
    ].tolist()  # which sweep leaves out, however the folder changes
    delta = Delta(tuned.delta.kind, tuned.delta.tensors, tuned.delta.meta | {"data": about})
    delta.save(out / "delta")
    swept = sweep(backbone, delta, test, ALPHAS)
    report.write(swept, out / "sweep", images.id_domain)
    checkpoint.unlink(missing_ok=True)  # only now: until here the same command goes on from it

    print(f"\nAccuracy (%) on test images\n{report.table(swept[swept['alpha'].isin(SHOWN)])}\n")
    print(f"The delta, the sweep and its figure are in {out.resolve()}. From here:")
    delta_path, merged = str(out / "delta"), str(out / "merged.safetensors")
    weights = arguments.pretrained or ""
    # Of a checkpoint the delta knows the name, and not the folder.
    own = ["--pretrained", weights] if Path(weights).is_file() else []
    for command in (
        ["sweep", delta_path, arguments.folder, *own],
        ["merge", delta_path, *own, "--alpha", "0.5", "--out", merged],
    ):
        print(f"  {shlex.join(['radapter-lite', *command])}")
    return 0


def _run(arguments: argparse.Namespace, images: "ImageSet") -> str:
    """What tells this run from others: a checksum of all that decides its result, with paths in full."""
    asked = [options.full_folder(arguments.folder), images.id_domain, arguments.shots, arguments.seed]
    asked += [arguments.epochs, arguments.backbone, options.full_weights(arguments.pretrained or "")]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]


def _folder(arguments: argparse.Namespace, images: "ImageSet", run: str) -> Path:
    """Where results go; unless --out says so, other settings, images or weights go elsewhere.

    Raises ValueError for a file, and for a folder with the delta of another run, which would be lost.
    """
    from radapter_lite.delta import Delta

    backbone = arguments.backbone.replace("/", "-").replace(":", "-")
    shots_and_seed = f"{arguments.shots}_shots_seed_{arguments.seed}"
    name = f"{images.name}_{images.id_domain}_{backbone}_{shots_and_seed}_{run[:6]}"
    out = arguments.out or Path("out") / name
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file where a folder for the results was expected: name another --out")
    if (out / "delta.json").exists() and Delta.load(out / "delta").meta.get("data", {}).get("run") != run:
        raise ValueError(f"{out} holds the delta of another run: name another --out, or remove the folder")
    return out
