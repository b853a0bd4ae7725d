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


def name_classes(codes: list[str], source: Mapping[str, str] | str | os.PathLike[str]) -> dict[str, str]:
    """The name of each code, which differ: of a name that several codes have, each is followed by its code.

    Args:
        codes: the names of the class folders, sorted.
        source: names by code, or a file that `read_names` reads.

    Raises:
        ValueError: for codes without a name, naming some; and what `read_names` raises.
    """
    if isinstance(source, Mapping):
        named, where = source, "class_names"
    else:
        named, where = read_names(Path(source), codes), str(source)
    if lacking := [code for code in codes if not named.get(code)]:
        raise ValueError(f"{where} has no name for {some(lacking)}: add one for each class folder")
    times = Counter(named[code] for code in codes)
    if shared := [name for name, number in times.items() if number > 1]:
        warnings.warn(
            f"{where} gives several class folders the same name ({some(shared)}), so each has its folder's name "
            f"behind it: give them names of their own for prompts that tell them apart",
            stacklevel=4,
        )
    return {code: named[code] if times[named[code]] == 1 else f"{named[code]} ({code})" for code in codes}


def read_names(path: Path, codes: list[str]) -> dict[str, str]:
    """Names by code of a .json, .csv, .tsv or .txt file; of several synonyms between commas it is the first.

    Text holds a code and its name in each line, or a name alone for each of the codes, in their order. JSON holds
    names by code, or ImageNet's {"0": ["n01440764", "tench"]}.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file of another kind or with another number of names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; give one that names the classes.")
    kind = path.suffix.lower()
    if kind not in (".json", ".csv", ".tsv", ".txt"):
        raise ValueError(f"{path} cannot be read for class names: expected a .json, .csv, .tsv or .txt file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        pairs = _json_pairs(text) if kind == ".json" else _text_pairs(lines, kind)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} holds no class names ({error}): expected UTF-8 text with a code and a name in each line, or "
            f"JSON with names by code"
        ) from error
    if kind != ".json" and not {code for code, _ in pairs} & set(codes):
        if len(lines) != len(codes):
            raise ValueError(
                f"{path} has {len(lines)} lines, none of which begins with a class folder's name ({some(codes)}): "
                f"expected a code and a name in each, or {len(codes)} names"
            )
        pairs = list(zip(codes, (line.strip('"') for line in lines), strict=True))
    return {code: name.split(",")[0].replace("_", " ").strip() for code, name in pairs}


def _json_pairs(text: str) -> list[tuple[str, str]]:
    """(code, name) of {code: name} or of {number: [code, name]}."""
    pairs = [tuple(value) if isinstance(value, list) else (key, value) for key, value in json.loads(text).items()]
    return [(code, str(name)) for code, name in pairs]


def _text_pairs(lines: list[str], kind: str) -> list[tuple[str, str]]:
    """(code, name) of each line; the name is empty where a line has one word."""
    if kind == ".txt":
        rows = [re.split("\t" if "\t" in line else r"[,\s]+", line, maxsplit=1) for line in lines]
    else:
        rows = list(csv.reader(lines, delimiter="," if kind == ".csv" else "\t"))
    return [(row[0].strip(), row[1] if len(row) > 1 else "") for row in rows]
