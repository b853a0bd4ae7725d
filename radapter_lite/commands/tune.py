"""`radapter-lite tune`: tune a backbone on a folder of images.

Tune R-Adapter, or another method, on a few images of each class, or on images and their captions, in one domain. Ends
with a table, a page and what was learned in the output folder. Interrupted, it goes on when the same command is given
again.

example: radapter-lite tune photos --id web --shots 16 --backbone ViT-B-32 --pretrained laion2b_s34b_b79k
"""

import argparse
import hashlib
import json
import os
import re
import shlex
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from radapter_lite.commands import options

if TYPE_CHECKING:
    from radapter_lite.data import ImageSet

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)  # that are measured
LARGEST_SEED = 2**32 - 1
LAUNCHED = {"bf16": "bfloat16", "fp16": "float16"}  # what `accelerate launch` calls precisions
PARENTS = [options.IMAGES, options.PROMPTS, options.DEVICE]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", default="R-Adapter", metavar="NAME", help="such as LoRA or FLYP (R-Adapter)")
    told = "a setting of the method in place of the recommended one, as epochs 20, or rank 8"
    parser.add_argument("--set", dest="settings", help=told, **options.NAMED)
    parser.add_argument("--shots", type=int, metavar="N", help="training images of each class (16; for captions all)")
    parser.add_argument("--backbone", default="picto", metavar="NAME", help="picto or any open_clip model (picto)")
    parser.add_argument("--pretrained", metavar="WEIGHTS", help="its weights: a tag or a file; picto needs none")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the drawn images and of training (0)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="that train together on this machine (1)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (out/ and a name of the settings)")


def execute(arguments: argparse.Namespace) -> None:
    from radapter_lite import processes

    if arguments.processes < 1:
        raise ValueError(f"--processes was given {arguments.processes}: expected 1 or more")
    if processes.count() == 1 < arguments.processes:
        processes.launch(execute, arguments, arguments.processes, cpu=options.device(arguments) == "cpu")
    else:
        with redirect_stdout(None) if processes.rank() else nullcontext():  # the first process speaks for all
            _tune(arguments)


def _tune(arguments: argparse.Namespace) -> None:
    from radapter_lite import processes
    from radapter_lite.backbone import load_clip
    from radapter_lite.commands import report
    from radapter_lite.evaluation import examine
    from radapter_lite.files import make_folder
    from radapter_lite.methods.registry import find_method, recommended
    from radapter_lite.settings import with_settings
    from radapter_lite.tasks import as_task

    if not 0 <= arguments.seed <= LARGEST_SEED:
        raise ValueError(f"--seed was given {arguments.seed}: expected a whole number from 0 to {LARGEST_SEED}")
    method, prompts = find_method(arguments.method), options.prompts(arguments)
    device = options.device(arguments)
    print(f"Listing {arguments.folder}.", flush=True)
    images = options.load_images(arguments)
    task = as_task(images)
    of_classes = task.metric == "accuracy"
    if arguments.shots is None:
        arguments.shots = 16 if of_classes else len(images)
    few, test = images.few_shot(arguments.shots, arguments.seed), images.test
    run = _run(arguments, images, prompts)
    out = _folder(arguments, images, run)
    backbone = load_clip(arguments.backbone, arguments.pretrained, device=device, prompts=prompts)
    texts = as_task(few).names
    shots = arguments.shots if of_classes else max(1, len(few) // len(texts))  # of each caption
    config = recommended(method.name, backbone, shots, arguments.seed, images.id_domain)
    if method.trains and (asked := os.environ.get("ACCELERATE_MIXED_PRECISION")) in LAUNCHED:
        config = with_settings(config, {"precision": LAUNCHED[asked]})
    config = with_settings(config, {name: options.parse_value(text) for name, text in arguments.settings})
    make_folder(out)

    print(f"Reading {len(few)} training images of {len(images)}.", flush=True)
    if few.broken == "skip" or not processes.rank():  # what stops the run need not be looked for by every process
        few = few.readable(backbone.preprocess)
    classes = few.table["class"].nunique()
    of = f"{classes} classes" if of_classes else f"{len(texts)} captions"
    print(f"Tuning {backbone.name} by {method.name} on {len(few)} images of {of}, ID {images.id_domain}.")
    if without := sorted(set(images.classes) - set(few.table["class"])):
        print(f"No training images: {', '.join(without)}.")
    elif of_classes and len(few) < classes * arguments.shots:
        print(f"Some classes have fewer than {arguments.shots} training images, and give all they have.")
    checkpoint = out / f"training_{run}.pt"
    if checkpoint.exists():
        print(f"Going on from {checkpoint}.", flush=True)
    tuned = method.tune(backbone, few, config, checkpoint=checkpoint)
    if processes.rank():
        return  # the first process measures and writes

    about = {"images": images.name, "id_domain": images.id_domain, "shots": arguments.shots, "run": run}
    # The files of training are those that sweep leaves out, however the folder changes.
    tuned = tuned.with_meta(data=about | {"training_images": few.table["file"].tolist()})
    tuned.save(out / "tuned")
    print(f"Reading {len(test)} test images, and measuring.", flush=True)
    test = test.readable(backbone.preprocess)
    swept, answers = examine(backbone, tuned, test, ALPHAS if tuned.has_alpha else None)
    report.write(swept, answers, out / "sweep", images.id_domain, task.metric)
    checkpoint.unlink(missing_ok=True)  # only now: until here the same command goes on from it

    print(f"\n{task.metric.capitalize()} (%) on test images\n{report.table(swept, task.metric)}\n")
    print(f"{report.sentences(answers)}\n")
    print(f"What was learned and sweep.html, its page, are in {out.resolve()}. From here:")
    weights = arguments.pretrained or ""
    own = ["--pretrained", weights] if Path(weights).is_file() else []  # of which the name was noted, not the folder
    print(" ", shlex.join(["radapter-lite", "sweep", f"{out}/tuned", arguments.folder, *own]))
    if tuned.answer is None:  # a change of weights, which a plain model can carry
        merged = ["--alpha", "0.5", "--out", f"{out}/merged.safetensors"]
        print(" ", shlex.join(["radapter-lite", "export", f"{out}/tuned", *own, *merged]))


def _run(arguments: argparse.Namespace, images: "ImageSet", prompts: tuple[str, ...] | None) -> str:
    """What tells this run from others: a checksum of all that decides its result, with paths in full and files read."""
    asked = [options.full_folder(arguments.folder), images.id_domain, arguments.shots, arguments.seed]
    asked += [arguments.method, arguments.settings, prompts, images.classes, list(images.table.get("captions", []))]
    asked += [arguments.backbone, options.full_weights(arguments.pretrained or "")]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]


def _folder(arguments: argparse.Namespace, images: "ImageSet", run: str) -> Path:
    """Where results go; unless --out says so, other settings, images or weights go elsewhere.

    Raises ValueError for a file, and for a folder with what another run learned or left unfinished.
    """
    from radapter_lite.delta_file import read_delta

    told = f"{arguments.backbone}_{arguments.method}_{arguments.shots}_shots_seed_{arguments.seed}_{run[:6]}"
    told = re.sub(r"[^\w.-]", "_", told)
    out = arguments.out or Path("out") / f"{images.name}_{images.id_domain}_{told}"
    if out.is_file():
        raise ValueError(f"{out} is a file where a folder for the results was expected: name another --out")
    held = [f"the checkpoint of another run, {path.name}" for path in out.glob("training_*.pt") if run not in path.name]
    if (out / "tuned.json").exists() and read_delta(out / "tuned")[1].get("data", {}).get("run") != run:
        held = ["what another run learned"]
    if held:
        raise ValueError(f"{out} holds {held[0]}: name another --out, or remove it")
    return out
