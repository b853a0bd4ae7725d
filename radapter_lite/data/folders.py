"""A folder of images as an `ImageSet`: class/image, below domains or splits or both; or a table of images.

Class folders that carry codes, such as ImageNet's n01440764, are named by a dict or a file.
"""

import csv
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from radapter_lite.data.images import ImageSet
from radapter_lite.data.readers import SUFFIXES
from radapter_lite.data.sources import open_source
from radapter_lite.data.table import SEPARATOR, SPLIT_NAMES, VALIDATION_SHARE, divide, renamed, some
from radapter_lite.files import StrPath
from radapter_lite.progress import progress

TABLES = {".csv": ",", ".tsv": "\t"}
Names = Mapping[str, str] | StrPath  # names by code, or a file that `read_names` reads


def load_folder(root: Path, seed: int, id_domain: str | None, class_names: Names | None) -> ImageSet:
    if root.suffix.lower() in TABLES and not root.is_dir():
        if class_names is not None:
            raise ValueError(f"{root} names its classes itself: give class names with a folder of images")
        return _of_table(root, seed, id_domain)
    table, options = open_source(root) or (_listed(root, class_names is None), {})
    id_domain = id_domain or table["domain"].iloc[0]
    splits = table.loc[table["domain"] == id_domain, "split"]
    if splits.isna().all():
        table = table.drop(columns="split")  # it is divided by the seed
    else:  # ID's folders may lack some, and OOD images are all test
        if not (splits == "test").any():  # what users of ImageNet measure on is its "val"
            splits = splits.replace("validation", "test")
        if not (splits == "validation").any():
            train = table["class"][splits.index[splits == "train"]]
            splits.update(divide(train, seed, {"validation": VALIDATION_SHARE}))
        table["split"] = splits.reindex(table.index, fill_value="test")
    images = ImageSet.from_table(table, root, id_domain=id_domain, seed=seed, **options)
    if class_names is None:
        return images
    # After the division, which names thus leave as it is.
    names = name_classes(images.classes, class_names)
    table = images.table.assign(**{"class": images.table["class"].map(names)})
    return replace(images, table=table, classes=[*names.values()])


def _listed(root: Path, in_words: bool) -> pd.DataFrame:
    """A row for each image of a folder: file, domain, class and split, which is None where the folders name none."""
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}; give one that holds a folder of images for each class.")
    _check_names([str(root.resolve())])
    parts = []
    for folder, above in progress(_class_folders(root), f"listing {root.name}", unit="folder"):
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and name[0] != ".")
        if not names:
            raise ValueError(f"The class folder {folder} holds no image; add images or remove the folder.")
        _check_names([str(folder), *(f"{folder}/{name}" for name in names)])
        files = [f"{folder.relative_to(root).as_posix()}/{name}" for name in names]
        code = re.sub("[_-]", " ", folder.name) if in_words else folder.name
        parts.append(pd.DataFrame({"file": files, "domain": "images", "class": code, "split": None} | above))
    return pd.concat(parts, ignore_index=True)


def _of_table(path: Path, seed: int, id_domain: str | None) -> ImageSet:
    if not path.is_file():
        raise FileNotFoundError(f"There is no table {path}; give a file with a row for each image.")
    try:
        table = pd.read_csv(path, sep=TABLES[path.suffix.lower()], dtype=str, keep_default_na=False, na_values=[""])
    except ValueError as error:
        raise ValueError(f"{path} is no table ({error}); expected UTF-8 text with the columns' names first.") from error
    table = renamed(table)
    if {"file", "captions"} <= set(table):  # the captions of an image may stand in several rows
        table["captions"] = table.fillna({"captions": ""}).groupby("file")["captions"].transform(SEPARATOR.join)
        table = table[~table.duplicated() | table["file"].isna()]
    return ImageSet.from_table(table, path.parent, id_domain=id_domain, name=path.stem, seed=seed)


def _class_folders(folder: Path, **above: str) -> list[tuple[Path, dict[str, str]]]:
    """The class folders below the root, a domain or a split, each with the domain and the split that are above it."""
    below = _folders(folder)
    if not below:
        raise ValueError(f"{folder} has no sub-folders; put each class's images into a sub-folder named after it.")
    splits = {path: SPLIT_NAMES[path.name.lower()] for path in below if path.name.lower() in SPLIT_NAMES}
    if "split" not in above and {"train"} < set(splits.values()) and any(_folders(path) for path in splits):
        if others := [path.name for path in below if path not in splits]:
            told = f"{folder} holds splits ({some(path.name for path in splits)}) beside {some(others)}"
            raise ValueError(f"{told}; put the splits into a sub-folder of their own, a domain, or move the others.")
        in_order = sorted(splits, key=lambda path: splits[path] != "train")
        return [found for path in in_order for found in _class_folders(path, **above, split=splits[path])]
    if "domain" not in above and any(with_folders := [bool(_folders(path)) for path in below]):
        if not all(with_folders):
            odd = below[with_folders.index(False)]
            told = f"{odd} holds images while other sub-folders of {folder} hold folders"
            raise ValueError(f"{told}; use class/image or domain/class/image throughout.")
        return [found for path in below for found in _class_folders(path, **above, domain=path.name)]
    return [(path, above) for path in below]


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [folder / name for name in sorted(each.name for each in entries if each.is_dir()) if name[0] != "."]


def _check_names(paths: Iterable[str]) -> None:
    """Raise ValueError for a name that is not UTF-8, which no table, report or delta could hold."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(path).decode(errors="backslashreplace")
            raise ValueError(f"The name of {shown} is not UTF-8; rename it.") from None


def name_classes(codes: list[str], source: Names) -> dict[str, str]:
    """The name of each code; the code follows a name that several have. Raises ValueError for a code without a name."""
    named, where = (source, "class_names") if isinstance(source, Mapping) else (read_names(Path(source), codes), source)
    if lacking := [code for code in codes if not named.get(code)]:
        raise ValueError(f"{where} has no name for {some(lacking)}: add one for each class folder")
    times = Counter(named[code] for code in codes)
    if shared := [name for name, number in times.items() if number > 1]:
        told = f"{where} gives several class folders the same name ({some(shared)}), so each has its folder's behind it"
        warnings.warn(f"{told}: give them names of their own for prompts that tell them apart", stacklevel=4)
    return {code: named[code] if times[named[code]] == 1 else f"{named[code]} ({code})" for code in codes}


def read_names(path: Path, codes: list[str]) -> dict[str, str]:
    """Names by code of a .json, .csv, .tsv or .txt file; of several synonyms between commas it is the first.

    Text holds a code and its name in each line, or a name for each code in their order; JSON names by code, or
    ImageNet's {"0": ["n01440764", "tench"]}. Raises FileNotFoundError, and ValueError for what is none of these.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; give one that names the classes.")
    if (kind := path.suffix.lower()) not in (".json", ".csv", ".tsv", ".txt"):
        raise ValueError(f"{path} cannot be read for class names: expected a .json, .csv, .tsv or .txt file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if kind == ".json":
            pairs = [each if isinstance(each, list) else (code, each) for code, each in json.loads(text).items()]
            return {code: _first(str(name)) for code, name in pairs}
    except (ValueError, TypeError, AttributeError) as error:
        wanted = "UTF-8 text with a code and a name in each line, or JSON with names by code"
        raise ValueError(f"{path} holds no class names ({error}): expected {wanted}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    tabbed = [re.sub(r"[,\s]+", "\t", line, count=1) if kind == ".txt" and "\t" not in line else line for line in lines]
    rows = csv.reader(tabbed, delimiter="," if kind == ".csv" else "\t")
    named = {row[0].strip(): _first("".join(row[1:2])) for row in rows}
    if set(named) & set(codes):
        return named
    if len(lines) != len(codes):
        found = f"{len(lines)} lines, none of which begins with a class folder's name ({some(codes)})"
        raise ValueError(f"{path} has {found}: expected a code and a name in each, or {len(codes)} names")
    return {code: _first(line) for code, line in zip(codes, lines, strict=True)}


def _first(names: str) -> str:
    """The first of some synonyms between commas."""
    return names.strip(' "\t').split(",")[0].replace("_", " ").strip()
