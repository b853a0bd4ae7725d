"""What several commands are told in the same words: the images, the backbone, the device, a delta, α."""

import argparse
import ast
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radapter_lite.alpha import Alpha
    from radapter_lite.backbone import Backbone
    from radapter_lite.data import ImageSet
    from radapter_lite.tuned import Tuned


# The parents of commands' parsers: what each of them is told of images, of class names, of the device and of α.
IMAGES, BACKBONE, PROMPTS, DEVICE, ALPHA = (argparse.ArgumentParser(add_help=False) for _ in range(5))
_told = """of images, as class/image or domain/class/image; or a .csv or .tsv table with the columns file and class or
    captions, and perhaps domain and split; or .tar shards, .parquet files or what save_to_disk wrote; or "pictoshift"
    for the embedded ones"""
IMAGES.add_argument("folder", metavar="FOLDER", help=_told)
IMAGES.add_argument("--broken", choices=("stop", "skip"), default="stop", help="what broken images do (stop)")
_workers = min(4, (os.cpu_count() or 1) - 1)
_told = f"processes that read images ahead, if there are many ({_workers})"
IMAGES.add_argument("--workers", type=int, default=_workers, metavar="N", help=_told)
IMAGES.add_argument("--id", metavar="DOMAIN", help="the domain that is in distribution (the folder's first)")
IMAGES.add_argument("--class-names", metavar="FILE", help="what class folders whose names are codes are called")
_told = """what class names are put into, as "a chest X-ray of {}", once or several times; or a file with one a line
    (those that suit the backbone, or that were tuned with)"""
PROMPTS.add_argument("--prompt", action="append", metavar="TEXT", help=_told)
DEVICE.add_argument("--device", metavar="NAME", help="where the model runs (cuda if there is one, else cpu)")
_told = "a number from 0 (zero-shot) to 1 (tuned), or by encoder and layer, as image=1 text=0.5 image.3=0 (1)"
ALPHA.add_argument("--alpha", nargs="+", default=["1"], metavar="A", help=_told)
# An option that may be given often, each time with a name and a value.
NAMED: dict[str, Any] = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
# Of what was tuned, for where it is not the one that was noted with it.
BACKBONE.add_argument("--backbone", metavar="NAME", help="the backbone (the one it was tuned on)")
_told = "its weights, needed where they are a checkpoint of yours: a tag or a file (those it was tuned on)"
BACKBONE.add_argument("--pretrained", metavar="WEIGHTS", help=_told)
BACKBONE = argparse.ArgumentParser(add_help=False, parents=[BACKBONE, PROMPTS, DEVICE])
TUNED = argparse.ArgumentParser(add_help=False, parents=[BACKBONE])
TUNED.add_argument("tuned", type=Path, metavar="TUNED", help="what tune saved, with or without a suffix")


def load_images(arguments: argparse.Namespace, id_domain: str | None = None) -> "ImageSet":
    """The folder's images. Its division into training and test images is the same for every command."""
    from radapter_lite import data

    how = {"broken": arguments.broken, "workers": arguments.workers, "class_names": arguments.class_names}
    return data.load_images(arguments.folder, id_domain=arguments.id or id_domain, **how)


def full_folder(folder: str) -> str:
    """A folder or table of images by its full path; "pictoshift", and what is not there, as it is."""
    return str(Path(folder).resolve()) if folder != "pictoshift" and Path(folder).exists() else folder


def full_weights(weights: str) -> str:
    """A checkpoint by its full path; a tag as it is."""
    return str(Path(weights).resolve()) if Path(weights).is_file() else weights


def prompts(arguments: argparse.Namespace) -> tuple[str, ...] | None:
    """The prompts that were given. Raises ValueError for one without {}, FileNotFoundError for a missing file."""
    from radapter_lite.backbone.load import as_prompts

    given = arguments.prompt
    return as_prompts(given[0] if len(given) == 1 else given) if given else None


def device(arguments: argparse.Namespace) -> str:
    """The device that was named, or else the fastest one. Raises ValueError for one that this machine lacks."""
    import torch

    there = ["cpu", "mps"] if torch.backends.mps.is_available() else ["cpu"]
    if torch.cuda.is_available():
        there = ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count())), *there]
    name = arguments.device or there[0]
    if name not in there:
        raise ValueError(f"--device was given {name!r}: this machine has {', '.join(there)}")
    return name


def load_tuned(path: Path, arguments: argparse.Namespace, device: str = "cpu") -> tuple["Tuned", "Backbone"]:
    """What was tuned, and the backbone it was tuned on with its prompts, or those named in their place."""
    from radapter_lite.backbone import load_clip
    from radapter_lite.methods import load_tuned

    tuned = load_tuned(path)
    name = arguments.backbone or tuned.meta.get("backbone")
    if name is None:
        raise ValueError(f"{path} does not name its backbone: give it with --backbone")
    own = tuned.meta.get("pretrained") if name == tuned.meta.get("backbone") else None
    said = prompts(arguments) or tuned.meta.get("prompts")
    return tuned, load_clip(name, arguments.pretrained or own, device=device, prompts=said)


def parse_value(text: str) -> Any:
    """A number, list, truth value or quoted text as Python writes it, true, false and none; anything else is text."""
    try:
        return ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        return text


def parse_alpha(words: Sequence[str]) -> "Alpha":
    """α as `Delta.apply` takes it: ["0.5"] is 0.5, ["image=1", "text=0.5"] a dict."""
    try:
        if len(words) == 1 and "=" not in words[0]:
            return float(words[0])
        return {key: float(value) for key, value in (word.split("=") for word in words)}
    except ValueError:
        told = f"--alpha was given {' '.join(words)!r}"
        raise ValueError(f"{told}: expected one number, or numbers by encoder as image=1 text=0.5") from None
