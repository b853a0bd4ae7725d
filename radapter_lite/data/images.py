"""The set of images that everything downstream takes: a table, the classes, and how a file becomes a picture."""

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from radapter_lite.data.readers import Decoding, read_file
from radapter_lite.data.table import TEST_SHARE, VALIDATION_SHARE, checked, divide, some
from radapter_lite.files import StrPath
from radapter_lite.progress import progress

KEPT_IMAGE_BYTES = 2 * 2**30  # some 3,500 images of 224 x 224, and all of PictoShift many times over
MANY = 2000  # images still to be read, from which on other processes read them
Preprocess = Callable[[Image.Image], Tensor]


class TensorCache(weakref.WeakKeyDictionary[Preprocess, dict[str, Tensor]]):
    """For each preprocess, for as long as it lives, the tensors it made by file. Another process begins with none."""

    def __reduce__(self) -> tuple[type["TensorCache"], tuple[()]]:
        return TensorCache, ()


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, each with a class, a domain and a split. It can be pickled, as workers of a DataLoader need.

    Attributes:
        table: a row an image, with the columns file, class, domain and split, and perhaps captions and more.
        classes: all class names, in the order of the labels; a selection keeps them all.
        id_domain: the domain that tuning sees; every other one is out of distribution.
        name: "pictoshift", or the folder's name.
        broken: what an image that cannot be read does: "stop" whatever reads it, or be left out before that ("skip").
        workers: processes that read ahead of training and measuring, where many images are still to be read.
    """

    table: pd.DataFrame
    classes: list[str]
    id_domain: str
    name: str
    broken: str = field(default="stop", kw_only=True)
    workers: int = field(default=0, kw_only=True)
    _read: Callable[[str], Image.Image] = field(repr=False)
    _too_small: bool = field(default=False, repr=False)  # no class has an ID image for each split
    _tensors: TensorCache = field(default_factory=TensorCache, repr=False)  # selections share it

    @classmethod
    def from_table(
        cls,
        table: pd.DataFrame,
        root: StrPath = ".",
        *,
        classes: Iterable[str] | None = None,
        id_domain: str | None = None,
        name: str | None = None,
        read: Callable[[str], Image.Image] | None = None,
        seed: int = 0,
    ) -> "ImageSet":
        """Make an image set of a table with a row an image; a ValueError names what is missing, unknown or there twice.

        Args:
            table: with the columns file and class, or file and captions, and perhaps domain (one, "images", if there
                is none) and split ("train", "validation" or "test"); without it, ID images are divided class by class
                and OOD images are all test. Other columns are kept.
            root: the folder that the files are relative to.
            classes: all class names, in the order of the labels; those of the table, sorted, if not given.
            id_domain: the domain to tune on; the table's first if not given.
            name: what errors and reports call it; the folder's name if not given.
            read: gives a file's image, RGB, in place of reading it from `root`; picklable if the image set is to be.
            seed: of the division into splits.
        """
        root = Path(root).absolute()
        name = name or root.resolve().name
        table, names = checked(table, name, classes)
        id_domain = id_domain or table["domain"].iloc[0]
        own = table.loc[table["domain"] == id_domain, "class"]
        if own.empty:
            domains = ", ".join(table["domain"].unique())
            raise ValueError(f"{name} has no domain {id_domain!r}; it has {domains}")
        too_small = False
        if "split" not in table:
            splits = divide(own, seed, {"test": TEST_SHARE, "validation": VALIDATION_SHARE})
            table["split"] = splits.reindex(table.index, fill_value="test")
            too_small = bool((splits == "train").all())
        return cls(table, names, id_domain, name, read or partial(read_file, root), too_small)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def domains(self) -> list[str]:
        """The ID domain first, then the others."""
        return sorted(self.table["domain"].unique(), key=lambda domain: domain != self.id_domain)

    @property
    def ood_domains(self) -> list[str]:
        return [domain for domain in self.domains if domain != self.id_domain]

    @property
    def labels(self) -> Tensor:
        """Index of each image's class in `classes` [N]."""
        return torch.from_numpy(pd.Index(self.classes).get_indexer(self.table["class"]))

    @property
    def train(self) -> "ImageSet":
        """The images to train on."""
        return self.select(split="train")

    @property
    def validation(self) -> "ImageSet":
        """The images to choose settings on."""
        return self.select(split="validation")

    @property
    def test(self) -> "ImageSet":
        """The images to measure on, of every domain."""
        return self.select(split="test")

    def select(
        self, *, domain: str | None = None, split: str | None = None, classes: Iterable[str] | None = None
    ) -> "ImageSet":
        """The images of one domain, one split or some classes. Raises ValueError, saying what there is, if none is."""
        classes = None if classes is None else list(classes)
        keep = np.ones(len(self), bool)
        for column, wanted in (("domain", [domain]), ("split", [split]), ("class", classes)):
            if wanted not in (None, [None]):
                keep &= self.table[column].isin(wanted)
        if not keep.any():
            told = f"{self.name} has no images with domain={domain}, split={split}, classes={classes}; it has "
            told += ", ".join(f"{d} {s}: {n}" for d, s, n, _ in self.counts().itertuples(index=False))
            if self._too_small and split in ("validation", "test") and domain in (None, self.id_domain):
                told += "; each class needs at least 3 ID images, one for each split"
            raise ValueError(told)
        return self.take(np.flatnonzero(keep))

    def only(self, classes: Iterable[str]) -> "ImageSet":
        """The images of some classes, as if there were no others. Raises ValueError for a class that is not there."""
        classes = list(dict.fromkeys(classes))
        if not classes or (unknown := set(classes) - set(self.classes)):
            told = f"{self.name} has no class {some(unknown) if classes else 'in an empty list'}"
            raise ValueError(f"{told}: name some of its {len(self.classes)} ({some(self.classes)})")
        return replace(self.select(classes=classes), classes=classes)

    def few_shot(self, shots: int, seed: int = 0) -> "ImageSet":
        """At most `shots` training images of each class in the ID domain, drawn with `seed`.

        For one seed the draws are nested: those for 4 shots are among those for 8. Of photographs, all designs are
        drawn once before one is drawn again. Raises ValueError for shots below 1, or without training images.
        """
        if type(shots) is not int or shots < 1:
            raise ValueError(f"shots must be a whole number of 1 or more, not {shots!r}")
        train = np.flatnonzero((self.table["domain"] == self.id_domain) & (self.table["split"] == "train"))
        if not len(train):
            told = f"{self.name} has no training images in its ID domain {self.id_domain!r}"
            raise ValueError(f"{told}: choose another id_domain")
        chosen: list[int] = []
        for label, own in pd.Series(train).groupby(self.labels.numpy()[train]):
            order = np.random.default_rng([seed, label]).permutation(own.to_numpy())
            if "view" in self.table:
                order = order[np.argsort(self.table["view"].to_numpy()[order], kind="stable")]
            chosen += order[:shots].tolist()
        return self.take(np.array(sorted(chosen), int))

    def image(self, row: int) -> Image.Image:
        """The image in row `row` of the table, RGB."""
        return self._read(self.table["file"].iloc[row])

    def tensor(self, preprocess: Preprocess, rows: Iterable[int] | None = None) -> Tensor:
        """Preprocessed images [n, 3, H, W], of the rows given or of all.

        Files are kept in memory, up to `KEPT_IMAGE_BYTES` in all; what does not fit is read anew. Raises ValueError for
        a file that is no readable image; the sentence names it.
        """
        wanted = range(len(self)) if rows is None else list(rows)
        return next(replace(self, workers=0).tensors(preprocess, [wanted]))

    def tensors(self, preprocess: Preprocess, parts: Iterable[Any], raises: bool = True) -> Iterator[Any]:
        """The `tensor` of each list of rows, read ahead by the workers; unless it `raises`, a broken image's error."""
        kept = self._tensors.setdefault(preprocess, {})
        unread = sum(file not in kept for file in self.table["file"]) if self.workers else 0
        named = (self.table["file"].iloc[np.asarray(rows)].tolist() for rows in parts)
        loader: DataLoader[Any] = DataLoader(
            Decoding(self._read, preprocess),  # type: ignore[arg-type]
            batch_size=None,
            sampler=((files, [file for file in files if file not in kept]) for files in named),
            num_workers=self.workers if unread >= MANY else 0,
            generator=torch.Generator(),  # of its own, which leaves torch's random numbers as they are
        )
        for files, missing, found in loader:
            if isinstance(found, ValueError):
                if raises:
                    raise found
                yield found
                continue
            new = dict(zip(missing, found, strict=True))
            for file, image in new.items():
                if (len(kept) + 1) * image.nbytes <= KEPT_IMAGE_BYTES:
                    kept[file] = image.clone()
            if missing != files:
                found = torch.stack([new[file] if file in new else kept[file] for file in files])
            yield found

    def readable(self, preprocess: Preprocess) -> "ImageSet":
        """The images that can be read, of the same classes; a warning counts and names the others.

        Where broken images stop, this reads what fits into memory alone, and raises ValueError for the first of them.
        """
        found = self.tensors(preprocess, ([row] for row in range(len(self))), raises=self.broken == "stop")
        broken, files, kept = {}, self.table["file"], self._tensors.setdefault(preprocess, {})
        for row, image in enumerate(progress(found, f"reading {self.name}", total=len(self), unit="image")):
            if isinstance(image, ValueError):
                broken[row] = str(image)
            elif self.broken == "stop" and files.iloc[row] not in kept:
                break
        if broken:
            told = f"{self.name}: {len(broken)} of {len(self)} images cannot be read and are left out: "
            told += "; ".join([*broken.values()][:3]) + " …" * (len(broken) > 3)
            if len(broken) == len(self):
                raise ValueError(told)
            warnings.warn(told, stacklevel=2)
        return replace(self.take(np.delete(np.arange(len(self)), [*broken])), broken="stop")

    def counts(self) -> pd.DataFrame:
        """Number of images and of classes by domain and split."""
        groups = self.table.groupby(["domain", "split"], sort=False)["class"]
        return groups.agg(images="size", classes="nunique").reset_index()

    def take(self, rows: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images in these rows of the table, in this order."""
        return replace(self, table=self.table.iloc[np.asarray(rows, int)].reset_index(drop=True))
