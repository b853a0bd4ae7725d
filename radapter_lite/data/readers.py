"""How a file becomes a picture: readers of folders and archives that other processes can have, and what they return."""

import io
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# A JPEG is decoded with no side below this: twice the largest image that a model of open_clip takes.
DRAFT = (1024, 1024)


def read_file(root: Path, file: str) -> Image.Image:
    """The image in this place of a folder."""
    return decoded(root / file, str(root / file))


def read_archived(archive: Path, file: str) -> Image.Image:
    """The image of this name in a zip archive."""
    return Image.open(io.BytesIO(archived(archive, file))).convert("RGB")


def archived(archive: Path, file: str) -> bytes:
    """The content of a file in a zip archive, which every process opens for itself."""
    return _open_archive(archive, os.getpid()).read(file)


@lru_cache(maxsize=4)
def _open_archive(path: Path, process: int) -> zipfile.ZipFile:
    """The open archive of one process: forked processes that share one move each other's place in the file."""
    return zipfile.ZipFile(path)


@dataclass(frozen=True)
class Decoding:
    """What a DataLoader asks for files [n] and some of them: both, and of the latter [m] the tensors, or an error."""

    read: Callable[[str], Image.Image]
    preprocess: Callable[[Image.Image], Tensor]

    def __getitem__(self, asked: tuple[list[str], list[str]]) -> tuple[list[str], list[str], Any]:
        try:  # from another process, only what is returned arrives as it is
            return *asked, torch.stack([self.preprocess(self.read(file)) for file in asked[1]]) if asked[1] else []
        except ValueError as error:
            return *asked, error


def decoded(source: Path | io.BytesIO, name: str) -> Image.Image:
    """The image of a file, as RGB. Raises ValueError for what is no readable image; the sentence has this name."""
    try:
        with Image.open(source) as image:
            return upright_rgb(image)
    except Exception as error:  # what is no image fails when it is opened, and decoders fail in many ways
        raise ValueError(f"{name} is no readable image ({error}); repair or remove it.") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image that was just opened, as RGB: upright as its EXIF says, and on white where it is transparent.

    Of 16 bits of grey the upper 8 are kept. A large JPEG is decoded at a half, a quarter or an eighth of its size while
    no side falls below 1024 pixels. Raises what Pillow raises for a damaged file, which are errors of many kinds.
    """
    image.draft("RGB", DRAFT)
    image.load()
    with suppress(Exception):  # EXIF that makes no sense fails in many ways, and leaves the image as it lies
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255
        image = Image.fromarray((np.asarray(image).clip(0, 2**16 - 1) >> 8).astype(np.uint8))
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    # White shows through: what lies under transparent pixels is often black, as the drawing is.
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
