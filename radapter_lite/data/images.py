"""The set of images that everything downstream takes: a table, the classes, and how a file becomes a picture."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

SPLITS = ("train", "validation", "test")
# A JPEG is decoded with no side below this: twice the largest image that a model of open_clip takes.
DRAFT = (1024, 1024)
KEPT_IMAGE_BYTES = 2 * 2**30  # some 3,500 images of 224 x 224, and all of PictoShift many times over


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, each with a class, a domain and a split.

    Attributes:
        table: a row an image, with the columns file, class, domain and split (and, for PictoShift, captions,
            author, licence and more); `file` is its place in the folder or in PictoShift's archive.
        classes: all class names, in the order of the labels; a selection keeps them all.
        id_domain: the domain that tuning sees; every other one is out of distribution.
        name: "pictoshift", or the folder's name.
    """

    table: pd.DataFrame
    classes: list[str]
    id_domain: str
    name: str
    _read: Callable[[str], Image.Image] = field(repr=False)
    _too_small: bool = field(default=False, repr=False)  # no class has an ID image for each split
    # For each preprocess, for as long as it lives, the tensors it made; selections share them.
    _tensors: "weakref.WeakKeyDictionary[Callable[[Image.Image], Tensor], dict[str, Tensor]]" = field(
        default_factory=weakref.WeakKeyDictionary, repr=False
    )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def domains(self) -> list[str]:
        """The ID domain first, then the others."""
        found = list(dict.fromkeys(self.table["domain"]))
        return sorted(found, key=lambda domain: domain != self.id_domain)

    @property
    def ood_domains(self) -> list[str]:
        return [domain for domain in self.domains if domain != self.id_domain]

    @property
    def labels(self) -> Tensor:
        """Index of each image's class in `classes` [N]."""
        order = {name: label for label, name in enumerate(self.classes)}
        return torch.tensor([order[name] for name in self.table["class"]])

    def select(
        self, *, domain: str | None = None, split: str | None = None, classes: Iterable[str] | None = None
    ) -> "ImageSet":
        """The images of one domain, one split or some classes.

        Raises:
            ValueError: if nothing is left; the sentence says what there is.
        """
        keep = pd.Series(True, index=self.table.index)
        for column, wanted in (("domain", domain), ("split", split)):
            if wanted is not None:
                keep &= self.table[column] == wanted
        if classes is not None:
            classes = list(classes)
            keep &= self.table["class"].isin(classes)
        if not keep.any():
            there = self.table.groupby(["domain", "split"]).size()
            counts = ", ".join(f"{d} {s}: {n}" for (d, s), n in there.items())
            if self._too_small and split in ("validation", "test") and domain in (None, self.id_domain):
                counts += "; each class needs at least 3 ID images, one for each split"
            raise ValueError(
                f"{self.name} has no images with domain={domain}, split={split}, classes={classes}; it has {counts}"
            )
        return self.take(np.flatnonzero(keep))

    def few_shot(self, shots: int, seed: int = 0) -> "ImageSet":
        """At most `shots` training images of each class in the ID domain, drawn with `seed`.

        For one seed the draws are nested: those for 4 shots are among those for 8. A class with fewer images
        gives all it has.

        Raises:
            ValueError: for shots below 1, or if the ID domain has no training images.
        """
        if type(shots) is not int or shots < 1:
            raise ValueError(f"shots must be a whole number of 1 or more, not {shots!r}")
        train = np.flatnonzero((self.table["domain"] == self.id_domain) & (self.table["split"] == "train"))
        if not len(train):
            raise ValueError(
                f"{self.name} has no training images in its ID domain {self.id_domain!r}: choose another id_domain"
            )
        names = self.table["class"].to_numpy()[train]
        chosen: list[int] = []
        for label, name in enumerate(self.classes):
            order = np.random.default_rng([seed, label]).permutation(train[names == name])
            chosen += order[:shots].tolist()
        return self.take(np.array(sorted(chosen), int))

    def image(self, row: int) -> Image.Image:
        """The image in row `row` of the table, RGB."""
        return self._read(self.table["file"].iloc[row])

    def tensor(
        self, preprocess: Callable[[Image.Image], Tensor], rows: Iterable[int] | None = None
    ) -> Tensor:
        """Preprocessed images [n, 3, H, W], of the rows given or of all.

        Files are read once and kept in memory, up to `KEPT_IMAGE_BYTES` in all; what does not fit is read anew.

        Raises:
            ValueError: for a file that is no readable image; the sentence names it.
        """
        wanted = self.table["file"] if rows is None else self.table["file"].iloc[list(rows)]
        kept = self._tensors.setdefault(preprocess, {})
        missing = sum(file not in kept for file in wanted)
        long = missing >= 2000
        found = []
        for file in tqdm(wanted, desc=f"reading {self.name}", unit="image", leave=False) if long else wanted:
            image = kept.get(file)
            if image is None:
                image = preprocess(self._read(file))
                if (len(kept) + 1) * image.nbytes <= KEPT_IMAGE_BYTES:
                    kept[file] = image
            found.append(image)
        return torch.stack(found)

    def counts(self) -> pd.DataFrame:
        """Number of images and of classes by domain and split."""
        groups = self.table.groupby(["domain", "split"], sort=False)["class"]
        return groups.agg(images="size", classes="nunique").reset_index()

    def take(self, rows: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images in these rows of the table, in this order."""
        return replace(self, table=self.table.iloc[list(rows)].reset_index(drop=True))


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image that was just opened, as RGB: upright as its EXIF says, and on white where it is transparent.

    Of 16 bits of grey the upper 8 are kept, as Pillow does for colours. A large JPEG is decoded at a half, a quarter
    or an eighth of its size, which is faster, while no side falls below 1024 pixels. Raises what Pillow raises for
    a damaged file, which are errors of many kinds.
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
