"""Shards of tar files, Parquet files and data sets of Hugging Face on this disk, as a table and what reads its images.

Nothing is unpickled, downloaded or run: of shards the members' places are listed, and images are read from there.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from radapter_lite.data.readers import SUFFIXES, decoded
from radapter_lite.data.table import CALLED, NO_CLASS, SEPARATOR, SPLIT_NAMES, renamed
from radapter_lite.progress import progress

PICKLED = (".pkl", ".pickle", ".pyd", ".pt", ".pth")
IMAGES = ("image", "img", "jpg", "png")  # columns that hold images, though a Parquet file does not say so
COLUMNS = {"domain": "images", "class": NO_CLASS, "split": None}  # and what stands for one that is not there


def open_source(path: Path) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """The table of shards, Parquet files or a saved data set, and the options of `from_table`; None for anything else.

    Raises ValueError for what cannot be read, is pickled, or lacks images or classes, and if a library is missing.
    """
    inside = sorted(path.glob("[!.]*"))
    files = [path] if not inside else [] if any(each.is_dir() for each in inside) else inside  # or class folders
    tars, tables = ([file for file in files if file.suffix == kind] for kind in (".tar", ".parquet"))
    if not (tars or tables or any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))):
        return None
    try:
        table, read, name = _shards(tars) if tars else _rows(path, tables)
    except ModuleNotFoundError as error:
        needs = f"{path} needs {error.name}, which is not installed"
        raise ValueError(f'{needs}: pip install "radapter-lite[scale]"') from error
    except Exception as error:  # damaged files fail in many ways
        wanted = "shards of uncompressed tar, Parquet files, or a folder that save_to_disk wrote"
        told = f"{path} cannot be read ({error}): expected {wanted}"
        raise ValueError(f"{told}, with an image and a class or a caption in each row") from error
    classes = set(table["class"].dropna().astype(str))
    in_order = sorted(classes, key=int) if all(map(str.isdecimal, classes)) else None  # as lists of their names are
    return table, {"classes": in_order, "name": name, "read": read}


def _shards(tars: list[Path]) -> tuple[pd.DataFrame, Any, str]:
    from webdataset.shardlists import expand_urls
    from webdataset.tariterators import group_by_keys

    shards = [Path(shard).absolute() for tar in tars for shard in expand_urls(str(tar))]
    root = Path(os.path.commonpath([shard.parent for shard in shards]))
    parts = []
    for shard in progress(shards, f"listing {root.name}", unit="shard"):
        place = shard.relative_to(root).as_posix()
        parts.append(_told(pd.DataFrame([_sample(each, place) for each in group_by_keys(_members(shard))])))
    return pd.concat(parts, ignore_index=True), partial(_read_member, root), root.name


def _members(shard: Path) -> Iterator[dict[str, Any]]:
    """A tar file's members as webdataset groups them: of texts what they say, of others their place."""
    with tarfile.open(shard, "r:") as archive:
        for member in iter(archive.next, None):
            archive.members = []  # type: ignore[attr-defined]  # or they would all be kept
            suffix = PurePosixPath(member.name).suffix.lower()
            if suffix in PICKLED:
                raise ValueError(f"{shard.name} holds {member.name}, which is pickled and could run anything")
            if member.isfile():
                text = archive.extractfile(member) if suffix in (".txt", ".cls", ".json") else None
                content = text.read().decode() if text else f"{member.offset_data}-{member.size}"
                yield {"fname": member.name, "data": content, "__url__": shard.name}


def _sample(sample: dict[str, str], place: str) -> dict[str, Any]:
    """A row of the table, whose file says where in which shard the image is: "0000.tar/key.jpg@1536-4096"."""
    if (kind := next((kind for kind in sample if f".{kind}" in SUFFIXES), None)) is None:
        raise ValueError(f"{place} has no image beside {sample['__key__']}")
    texts = {name: sample[name].strip() for name in ("cls", "txt") if name in sample}
    file = f"{place}/{sample['__key__']}.{kind}@{sample[kind]}"
    return json.loads(sample.get("json", "{}")) | texts | {"file": file}


def _read_member(root: Path, file: str) -> Image.Image:
    place, _, span = file.rpartition("@")
    start, size = map(int, span.split("-"))
    with open(root / f"{place.partition('.tar/')[0]}.tar", "rb") as shard:
        shard.seek(start)
        return decoded(io.BytesIO(shard.read(size)), str(root / place))


def _rows(path: Path, tables: list[Path]) -> tuple[pd.DataFrame, Any, str]:
    from datasets import Dataset, load_from_disk
    from datasets import Image as ImageFeature

    found = Dataset.from_parquet([str(table) for table in tables]) if tables else load_from_disk(str(path))
    parts, images = [], {}
    for split, part in (found if isinstance(found, dict) else {"": found}).items():
        kinds = part.features
        column = next((name for name in kinds if isinstance(kinds[name], ImageFeature) or name in IMAGES), None)
        if column is None:
            raise ValueError(f"no image among the columns {', '.join(kinds)}")
        images[split] = part.select_columns([column]).cast_column(column, ImageFeature(decode=False))
        wanted = [name for name in kinds if name in {*COLUMNS, *CALLED, "captions"} and name != column]
        table = part.select_columns(wanted).to_pandas()
        for name in wanted:
            if names := getattr(kinds[name], "names", None):  # of numbered classes, of which -1 is none
                table[name] = table[name].map(dict(enumerate(names)))
        table = table.assign(file=[f"{split}/{row}" for row in range(len(part))])
        parts.append(_told(table if "split" in table or not split else table.assign(split=split)))
    return pd.concat(parts, ignore_index=True), partial(_read_row, images, path), path.stem


def _read_row(images: dict[str, Any], path: Path, file: str) -> Image.Image:
    split, _, row = file.rpartition("/")
    image = next(iter(images[split][int(row)].values())) or {}
    content = image.get("bytes")
    return decoded(io.BytesIO(content) if content else Path(image.get("path") or ""), f"{path}, {file},")


def _told(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that an image set has a use for, under its own names."""
    table = renamed(table)
    if not {"class", "captions"} & set(table):
        raise ValueError(f"neither class, label, caption nor text among {', '.join(table)}")
    table = table.assign(**{name: value for name, value in COLUMNS.items() if name not in table})
    table["split"] = table["split"].replace(SPLIT_NAMES)
    if "captions" in table:
        said = table["captions"]
        table["captions"] = [SEPARATOR.join(each) if isinstance(each, list | np.ndarray) else each for each in said]
    return table[[name for name in ("file", *COLUMNS, "captions") if name in table]]
