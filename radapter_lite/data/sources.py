"""Shards of tar files, Parquet files and data sets of Hugging Face on this disk, as a table and what reads its images.

Nothing is unpickled, downloaded or run: of a shard the members' places are listed, and images are read from there.
"""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from radapter_lite.data.readers import SUFFIXES, decoded
from radapter_lite.data.table import COLUMNS, SEPARATOR, SPLIT_NAMES, renamed, some
from radapter_lite.progress import progress

SAVED = ("state.json", "dataset_dict.json")  # in a folder that `save_to_disk` wrote
PICKLED = {".pkl", ".pickle", ".pyd", ".pt", ".pth"}
READ = {".txt", ".cls", ".json"}  # of a shard's members, beside images
WANTED = {"class", *COLUMNS["class"], "captions", *COLUMNS["captions"], "domain", "split"}
Source = tuple[pd.DataFrame, Callable[[str], Image.Image], str]  # the table, its reader and a name


@dataclass(frozen=True)
class ShardReader:
    """Reads images by their place in tar files: "0000.tar/key.jpg@1536-4096", from this byte on so many."""

    root: Path

    def __call__(self, file: str) -> Image.Image:
        place, _, span = file.rpartition("@")
        start, size = map(int, span.split("-"))
        with open(self.root / f"{place.partition('.tar/')[0]}.tar", "rb") as shard:
            shard.seek(start)
            return decoded(io.BytesIO(shard.read(size)), str(self.root / place))


@dataclass(frozen=True)
class RowReader:
    """Reads images by the part and the row of a data set: "train/12"; other processes open its files for themselves."""

    parts: dict[str, Any]
    column: str
    name: str

    def __call__(self, file: str) -> Image.Image:
        part, _, row = file.rpartition("/")
        image = self.parts[part][int(row)][self.column] or {}
        content = image.get("bytes")
        return decoded(io.BytesIO(content) if content else Path(image.get("path") or ""), f"{self.name}, {file},")


def open_source(path: Path) -> Source | None:
    """The table of shards, Parquet files or a saved data set, its reader and its name; None for anything else.

    The table has the columns file and domain, class or captions, and split, which is None where none is named. Raises
    ValueError for what has no images or neither classes nor captions, for pickled members, and if a library is missing.
    """
    if any((path / name).is_file() for name in SAVED):
        return _rows(path, [])
    if path.is_dir():
        tars, tables = (sorted(path.glob(f"*{kind}")) for kind in (".tar", ".parquet"))
    else:
        tars = _expanded(path) if path.name.endswith((".tar", ".tar.gz", ".tgz")) else []
        tables = [path] if path.suffix == ".parquet" else []
    if lacking := [each for each in tars + tables if not each.is_file()]:
        raise FileNotFoundError(f"There is no file {lacking[0]}; give shards or tables that are there.")
    return _shards(path, tars) if tars else _rows(path, tables) if tables else None


def _expanded(path: Path) -> list[Path]:
    """The shards of a name such as "{0000..0003}.tar"."""
    with _library(path):
        from webdataset.shardlists import expand_urls
    return [Path(each).absolute() for each in expand_urls(str(path))]


def _shards(path: Path, shards: list[Path]) -> Source:
    with _library(path):
        from webdataset.tariterators import group_by_keys
    root = Path(os.path.commonpath([shard.absolute().parent for shard in shards]))
    parts = []
    with progress(what=f"listing {root.name}", unit="image") as bar:
        for shard in shards:
            samples = group_by_keys(_members(shard))
            place = shard.absolute().relative_to(root).as_posix()
            parts.append(renamed(pd.DataFrame([_sample(each, place) for each in samples])))
            bar.update(len(parts[-1]))
    return _told(pd.concat(parts, ignore_index=True), path), ShardReader(root), root.name


def _members(shard: Path) -> Iterator[dict[str, Any]]:
    """A tar file's members as webdataset groups them: of an image, its place; of texts, what they say."""
    try:
        with tarfile.open(shard, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # or they would all be kept
                suffix = PurePosixPath(member.name).suffix.lower()
                if suffix in PICKLED:
                    raise ValueError(f"{shard} holds {member.name}, which may run code: write text, cls or json")
                content: Any = f"{member.offset_data}-{member.size}"
                if suffix in READ and (file := archive.extractfile(member)):
                    content = file.read().decode()
                if member.isfile():
                    yield {"fname": member.name, "data": content, "__url__": str(shard)}
    except tarfile.TarError as error:
        raise ValueError(f"{shard} is no tar file that can be read at any place ({error}): unpack .gz") from error


def _sample(sample: dict[str, Any], place: str) -> dict[str, str]:
    """The row of a sample: the place of its image, and what stands beside it."""
    kind = next((kind for kind in sample if f".{kind}" in SUFFIXES), None)
    if kind is None:
        there = some(kind for kind in sample if not kind.startswith("__"))
        raise ValueError(f"{place} has no image beside {sample['__key__']} ({there}): expected {some(SUFFIXES)}")
    try:
        said = dict(json.loads(sample.get("json", "{}")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{place} holds {sample['__key__']}.json, which is no JSON of names and values") from error
    said |= {name: sample[name].strip() for name in ("cls", "txt") if name in sample}
    row = {name: _text(value) for name, value in said.items() if name in WANTED and value is not None}
    return row | {"file": f"{place}/{sample['__key__']}.{kind}@{sample[kind]}"}


def _rows(path: Path, files: list[Path]) -> Source:
    with _library(path):
        from datasets import Dataset, DatasetDict, Image, load_from_disk
    try:
        found = Dataset.from_parquet([str(file) for file in files]) if files else load_from_disk(str(path))
    except Exception as error:  # the libraries below fail in many ways
        raise ValueError(f"{path} cannot be read as a data set ({error}): write it anew") from error
    tables, parts, column = [], {}, ""
    for split, part in (found if isinstance(found, DatasetDict) else {"": found}).items():
        kinds = part.features
        named = [
            name
            for name in (*COLUMNS["file"], "img", "jpg", "png")
            if getattr(kinds.get(name), "dtype", "") != "string"
        ]
        column = next(
            (
                name
                for name in [*kinds, *named]
                if isinstance(kinds.get(name), Image) or name in named and name in kinds
            ),
            "",
        )
        if not column:
            raise ValueError(_lacking(path, part.column_names))
        parts[split] = part.select_columns([column]).cast_column(column, Image(decode=False))
        table = part.select_columns([name for name in kinds if name in WANTED and name != column]).to_pandas()
        for name in table:
            names = getattr(kinds[name], "names", None)  # of numbered classes, of which -1 is none
            table[name] = table[name].map(dict(enumerate(names)) if names else _text)
        own = {"split": SPLIT_NAMES.get(split)} if split and "split" not in table else {}
        tables.append(renamed(table).assign(file=[f"{split}/{row}" for row in range(len(part))], **own))
    return _told(pd.concat(tables, ignore_index=True), path), RowReader(parts, column, str(path)), path.stem


def _text(value: Any) -> Any:
    """A value of a table as text, several captions as one."""
    return (
        SEPARATOR.join(map(str, value))
        if isinstance(value, list | tuple | np.ndarray)
        else value
        if value is None
        else str(value)
    )


def _told(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The columns that an image set has a use for."""
    if not {"class", "captions"} & set(table):
        raise ValueError(_lacking(path, table.columns))
    defaults = {"domain": "images", "split": None}
    table = table.assign(**{name: value for name, value in defaults.items() if name not in table})
    table["split"] = table["split"].map(lambda name: SPLIT_NAMES.get(name, name))
    return table[[name for name in ("file", "domain", "class", "captions", "split") if name in table]]


def _lacking(path: Path, columns: Iterable[str]) -> str:
    return (
        f"{path} has {', '.join(columns)}: expected an image, and a class ({', '.join(('class', *COLUMNS['class']))}) "
        f"or a caption ({', '.join(('captions', *COLUMNS['captions']))})"
    )


@contextmanager
def _library(path: Path) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f'{path} needs {error.name}, which is not installed: pip install "radapter-lite[scale]"'
        ) from error
