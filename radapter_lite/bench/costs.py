"""What a training step of each method costs: time and memory, every method in a process of its own.

The processes run one after the other on the same machine: ratios between methods can be compared, seconds cannot.
"""

import multiprocessing
import sys
from pathlib import Path

import pandas as pd

from radapter_lite.methods.registry import METHODS, recommended
from radapter_lite.progress import progress
from radapter_lite.results import add_rows, missing, read_rows
from radapter_lite.settings import with_settings

MEGABYTE = 2**20 if sys.platform == "darwin" else 2**10  # of what getrusage counts in


def run_costs(path: Path, methods: list[str]) -> pd.DataFrame:
    """A row a method: trained_parameters; milliseconds, the median of a step of 64 images; megabytes, by how much
    training raised the peak of the process's memory over that of zero-shot classification. Without steps both are NaN.
    """
    context = multiprocessing.get_context("spawn")
    for key in progress(missing([{"method": name} for name in methods], path), "costs"):
        with context.Pool(1) as pool:
            add_rows(pd.DataFrame([pool.apply(cost, (key["method"],))]), path)
    table = read_rows(path)
    return table[table["method"].isin(methods)]


def cost(name: str) -> dict[str, object]:
    """One row of `costs`, measured in this process; not on Windows, which does not tell the peak of its memory."""
    import resource

    from radapter_lite.backbone import load_clip
    from radapter_lite.data import load_images
    from radapter_lite.encoding import predict

    clip, images = load_clip(), load_images()
    few = images.few_shot(16, 0)
    predict(clip, few)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = recommended(name, clip, 16)
    if METHODS[name].trains:
        config = with_settings(config, {"epochs": 1})
    tuned = METHODS[name].tune(clip, few, config)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row: dict[str, object] = {"method": name, "trained_parameters": tuned.trained_parameters}
    if len(tuned.history) > 1:
        row["milliseconds"] = 1000 * tuned.history["seconds"].diff().median()
        row["megabytes"] = (after - before) / MEGABYTE
    return row
