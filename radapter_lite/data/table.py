"""The table of an image set: what it must hold, and how its images are divided into splits."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

NO_CLASS = "image"  # of images that have captions and no classes
SEPARATOR = " | "  # between the captions of one image
SPLITS = ("train", "validation", "test")
# Folders of these names are splits, not domains, where there is one for training and another.
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test"}
SPLIT_NAMES |= dict.fromkeys(("val", "valid", "validation"), "validation")
# Other names of columns, as in open_clip's tables and shards and in data sets of the hub; the first that is there.
CALLED = {"path": "file", "filepath": "file", "label": "class", "class_name": "class", "cls": "class"}
CALLED |= dict.fromkeys(("caption", "text", "txt", "title"), "captions")
# How ID images are divided, class by class; the rest is for training.
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.3


def checked(table: pd.DataFrame, name: str, classes: Iterable[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """A copy of a table whose rows each name a file, its class and its domain as text, and all classes.

    Where there are captions and no classes, all images are of the class "image". Raises as `ImageSet.from_table`.
    """
    if "captions" in table and "class" not in table:
        table = table.assign(**{"class": NO_CLASS})
    if lacking := [column for column in ("file", "class") if column not in table]:
        told = f"{name}'s table has no column {' and no column '.join(lacking)}, only {some(table.columns)}"
        raise ValueError(f"{told}: give the file and the class, or the captions, of each image")
    if table.empty:
        raise ValueError(f"{name}'s table has no rows: give one for each image")
    table = table.reset_index(drop=True)
    for column in [column for column in ("file", "class", "domain", "split") if column in table]:
        if (gaps := table[column].isna()).any():
            raise ValueError(f"{name}'s table has no {column} in row {gaps.idxmax()}: fill it in or drop the row")
        table[column] = table[column].astype(str)
    hashes = np.fromiter(map(hash, table["file"]), np.int64, len(table))  # a tenth of what pandas takes
    if len(np.unique(hashes)) < len(table) and (again := table["file"].duplicated()).any():
        raise ValueError(f"{name}'s table names {table['file'][again].iloc[0]} twice: keep one row of it")
    if "split" in table and (unknown := set(table["split"]) - set(SPLITS)):
        raise ValueError(f"{name}'s table has the split {some(unknown)}: name splits {', '.join(SPLITS)}")
    names = sorted(table["class"].unique()) if classes is None else [str(known) for known in classes]
    if twice := [known for known, times in Counter(names).items() if times > 1]:
        raise ValueError(f"the classes of {name} have {some(twice)} twice: give each class a name of its own")
    if strange := set(table["class"]) - set(names):
        told = f"{name}'s table has the class {some(strange)}, but its classes are {some(names)}"
        raise ValueError(f"{told}: add it there or drop its rows")
    return table if "domain" in table else table.assign(domain="images"), names


def divide(classes: pd.Series, seed: int, shares: Mapping[str, float]) -> pd.Series:
    """The split of each image [N], given its class [N]: of every class these shares, and the rest for training.

    A class with an image for every split has at least one in each; a smaller one is all for training.
    """
    splits = np.full(len(classes), "train", object)
    rng = np.random.default_rng(seed)
    for rows in classes.groupby(classes).indices.values():
        sizes = [max(int(len(rows) * share), len(rows) > len(shares)) for share in shares.values()]
        for split, own in zip(shares, np.split(rng.permutation(rows), np.cumsum(sizes)), strict=False):
            splits[own] = split
    return pd.Series(splits, index=classes.index)


def renamed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns file, class and captions, where it has them under another name of `CALLED`."""
    called = {CALLED[other]: other for other in reversed(CALLED) if other in table and CALLED[other] not in table}
    return table.rename(columns={other: name for name, other in called.items()})


def some(names: Iterable[str]) -> str:
    """The first three of some names, for a sentence."""
    listed = [str(name) for name in sorted(names)]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
