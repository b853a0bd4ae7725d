"""Names of classes whose folders carry codes, such as ImageNet's n01440764, from a dict or a file."""

import csv
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from radapter_lite.data.table import some

Names = Mapping[str, str] | str | os.PathLike[str]  # names by code, or a file that `read_names` reads


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
