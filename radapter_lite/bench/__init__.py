"""The long runs behind the notebooks' tables, each resumable, each saved as one CSV.

search      settings of every method, on ID validation images
few_shot    every method over shots and seeds
severity    a few methods on photographs that are nearer and farther
base_to_novel
            half of the classes tuned on, and the other half
retrieval   captions for images and images for captions
toolbox     few-shot tricks, each alone and all together
ablations   R-Adapter without its parts, and with other values of its settings
"""

from radapter_lite.bench.ablations import run_ablations
from radapter_lite.bench.base_to_novel import run_base_to_novel
from radapter_lite.bench.few_shot import ALPHAS, SEEDS, SHOTS, run_few_shot, run_severity
from radapter_lite.bench.measuring import Exam
from radapter_lite.bench.retrieval import run_retrieval
from radapter_lite.bench.search import run_search
from radapter_lite.bench.tables import results_table, who_is_ahead
from radapter_lite.bench.toolbox import run_toolbox
from radapter_lite.results import RESULTS, load_results, read_rows

__all__ = [
    "ALPHAS",
    "RESULTS",
    "SEEDS",
    "SHOTS",
    "Exam",
    "run_ablations",
    "run_base_to_novel",
    "load_results",
    "read_rows",
    "results_table",
    "run_few_shot",
    "run_retrieval",
    "run_search",
    "run_severity",
    "run_toolbox",
    "who_is_ahead",
]
