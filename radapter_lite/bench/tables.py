"""The saved tables of the long runs: written whole, resumed row by row, read by notebooks and README."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from radapter_lite.evaluation import mean_and_interval, summarize

RESULTS = Path(__file__).parent.parent / "assets" / "results"
NAMES = ("search", "few_shot", "ablations", "costs")


def load_results(name: str = "few_shot", folder: Path = RESULTS) -> pd.DataFrame:
    """A saved table of long runs.

    Raises:
        ValueError: for a name that is none of `NAMES`.
        FileNotFoundError: if the table is missing; the sentence names the command that makes it.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} names no results; there are {', '.join(NAMES)}")
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"the results {name} are not in {folder}: make them with `radapter-lite bench {name}`"
        )
    return pd.read_csv(path)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.concat([part for part in (read_rows(path), rows) if len(part)], ignore_index=True)
    partial = path.with_suffix(".partial")
    table.to_csv(partial, index=False, float_format="%.6g")
    os.replace(partial, path)


def results_table(results: pd.DataFrame) -> str:
    """The README's table from `few_shot`, as Markdown: ID and OOD mean by method, shots and α, with intervals.

    R-Adapter and FLYP at every number of shots; at 16 also their α = 0.5, which for FLYP is WiSE-FT.
    """
    results = results[(results["split"] == "test") & results["method"].isin(("R-Adapter", "FLYP"))]
    by_seed = summarize(results, ["method", "shots", "seed", "alpha"])
    start = by_seed[by_seed["alpha"] == 0][["id", "ood"]].mean()
    kept = by_seed[(by_seed["alpha"] == 1) | ((by_seed["alpha"] == 0.5) & (by_seed["shots"] == 16))]
    table = mean_and_interval(kept, ["method", "shots", "alpha"])
    table = table.sort_values(["shots", "method", "alpha"], ascending=[True, False, True])
    lines = ["| method | shots | α | ID (outline) | OOD mean | seeds |", "|---|---|---|---|---|---|"]
    lines.append(f"| zero-shot | 0 | 0 | {start['id']:.1f} | {start['ood']:.1f} | |")
    for row in table.itertuples():
        method = "WiSE-FT over FLYP" if (row.method, row.alpha) == ("FLYP", 0.5) else row.method
        lines.append(
            f"| {method} | {row.shots} | {row.alpha:g} | {row.id:.1f} ± {row.id_ci:.1f} | "
            f"{row.ood:.1f} ± {row.ood_ci:.1f} | {row.seeds} |"
        )
    return "\n".join(lines)
