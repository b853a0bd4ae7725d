"""The saved tables of the long runs: written whole, resumed row by row, read by methods, notebooks and README."""

from pathlib import Path
from typing import Any

import pandas as pd

from radapter_lite.assets import RESULTS
from radapter_lite.files import make_folder, whole

NAMES = ["search", "few_shot", "severity", "full_data", "base_to_novel", "retrieval"]
NAMES += ["segmentation", "by_image", "toolbox", "ablations", "neighbours", "speed"]


def load_results(name: str = "few_shot", folder: Path = RESULTS, id_domain: str = "outline") -> pd.DataFrame:
    """A saved table of long runs: those that were tuned on one domain, "outline" or "camera".

    Raises ValueError for a name that is none of `NAMES` and a domain that nothing was tuned on, and FileNotFoundError.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} names no results; there are {', '.join(NAMES)}")
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise FileNotFoundError(f"the results {name} are not in {folder}: make them with `radapter-lite bench {name}`")
    table = pd.read_csv(path)
    own = table[table["id_domain"] == id_domain].reset_index(drop=True)
    if own.empty:
        there = ", ".join(table["id_domain"].unique())
        raise ValueError(f"the results {name} have no run that was tuned on {id_domain!r}, only on {there}: name one")
    return own


def read_rows(path: Path) -> pd.DataFrame:
    """What `path` holds so far; an empty table if it is not there yet."""
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def missing(keys: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Those of the keys, all of the same columns, that no row of `path` has yet."""
    rows = read_rows(path)
    if not keys or not len(rows):
        return keys
    known = set(rows[list(keys[0])].itertuples(index=False, name=None))
    return [key for key in keys if tuple(key.values()) not in known]


def add_rows(rows: pd.DataFrame, path: Path) -> None:
    """Add rows to a CSV file, which is written whole or not at all; one process at a time may do so."""
    make_folder(path.parent)
    table = pd.concat([part for part in (read_rows(path), rows) if len(part)], ignore_index=True)
    with whole(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
