"""What every bench is: a list of independent runs, each told by its key; what is missing is run and kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from radapter_lite.progress import progress
from radapter_lite.results import add_rows, missing, read_rows
from radapter_lite.statistics import mean_and_interval, summarize

Key = dict[str, Any]  # id_domain, seed and whatever else tells a run from others, as columns of its rows


def run_all(
    keys: list[Key], run: Callable[[Key], pd.DataFrame], path: Path, by: list[str], metric: str = "accuracy"
) -> pd.DataFrame:
    """Run what `path` does not hold yet, and add its rows.

    Args:
        keys: of one id_domain.
        run: from a key to rows of `Exam.measure` that have it.

    Returns:
        ID and OOD on test images at α = 1, or without an α, by the columns `by`: means and intervals over seeds.
    """
    for key in progress(missing(keys, path), path.stem):
        add_rows(run(key), path)
    rows = read_rows(path)
    shown = (rows["id_domain"] == keys[0]["id_domain"]) & (rows["split"] == "test") & ~(rows["alpha"] < 1)
    return mean_and_interval(summarize(rows[shown], [*by, "seed"], metric), by)
