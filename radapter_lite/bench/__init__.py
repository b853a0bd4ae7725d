"""The long runs behind the notebooks' tables, each a list of runs that is resumed, each saved as one CSV."""

from collections.abc import Callable

import pandas as pd

from radapter_lite.bench.ablations import run_ablations, run_neighbours
from radapter_lite.bench.base_to_novel import run_base_to_novel, run_segmentation
from radapter_lite.bench.few_shot import ALPHAS, SEEDS, run_by_image, run_few_shot, run_full_data, run_severity
from radapter_lite.bench.retrieval import run_retrieval
from radapter_lite.bench.runs import Exam, workers
from radapter_lite.bench.search import run_search
from radapter_lite.bench.speed import run_speed
from radapter_lite.bench.tables import claims, claims_table, overview, overview_table, results_table, who_is_ahead
from radapter_lite.bench.toolbox import run_toolbox
from radapter_lite.results import RESULTS, load_results, read_rows

# What `radapter-lite bench` can run, by name. Each function's arguments say what it can be told.
_RUNS = (run_search, run_few_shot, run_severity, run_full_data, run_by_image, run_base_to_novel, run_retrieval)
PARTS: dict[str, Callable[..., pd.DataFrame]] = {
    run.__name__.removeprefix("run_"): run
    for run in (*_RUNS, run_segmentation, run_toolbox, run_ablations, run_neighbours, run_speed)
}

# The runs are documented where they are.
__all__ = ["ALPHAS", "PARTS", "RESULTS", "SEEDS", "Exam"]
__all__ += ["claims", "claims_table", "load_results", "overview", "overview_table", "read_rows", "results_table"]
__all__ += ["who_is_ahead", "workers"]
