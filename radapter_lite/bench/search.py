"""One setting of every method, chosen on ID validation images with the same budget: five runs of half the epochs each.

Three values come from the method's grid. Each of two more looks where the best so far points: one step beyond the
tried values if it is the lowest or the highest of them, else halfway to the better of its neighbours.
The images are few-shot draws of a seed that no reported run uses; no test image and no other domain is looked at.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from radapter_lite.backbone import Backbone
from radapter_lite.bench.few_shot import SHOTS
from radapter_lite.bench.runs import Key, run_all, run_missing, seconds
from radapter_lite.data import ImageSet
from radapter_lite.methods.registry import METHODS, epochs, find_method, for_backbone
from radapter_lite.results import read_rows
from radapter_lite.tasks import as_task

SEED = 1000
RUNS = 5
VariantRun = Callable[..., pd.DataFrame]  # (key, values), see `run_variants`


def run_search(
    backbone: Backbone, images: ImageSet, path: Path, methods: list[str] | None = None, shots: list[int] | None = None
) -> pd.DataFrame:
    """Run what `path` does not hold yet: a row a run: id_domain, method, shots, setting, value, validation, seconds.

    Returns the best row of each method and shots, of all if none are named. `validation` is accuracy (%) at α = 1.
    """
    names = [find_method(name).name for name in methods or METHODS]
    numbers = sorted(shots or SHOTS, reverse=True)
    tried = [(number, name) for number in numbers for name in names if METHODS[name].grid]

    def run(key: Key, before: pd.DataFrame) -> pd.DataFrame:
        method, shots = key["method"], key["shots"]
        known, place = METHODS[method], (images.id_domain, method, shots)
        found = {r.value: r.validation for r in before.itertuples() if (r.id_domain, r.method, r.shots) == place}
        value = next_value(known.grid, found)
        budget = {"epochs": epochs(shots) // 2, "seed": SEED} if known.trains else {}
        config = for_backbone(method, backbone, {known.searched: value} | budget)
        tuned = known.tune(backbone, images.few_shot(shots, SEED), config)
        task = as_task(images.select(domain=images.id_domain, split="validation"))
        accuracy = task.score(tuned.similarities(backbone, task))[task.metric].item()
        row = {"setting": known.searched, "value": value, "validation": accuracy, "seconds": seconds(tuned)}
        return pd.DataFrame([key | row])

    for count in range(RUNS):  # where a run looks depends on those before it
        keys = [{"id_domain": images.id_domain, "method": name, "shots": n, "run": count} for n, name in tried]
        table = run_missing(keys, partial(run, before=read_rows(path)), path)
    table = table[table["id_domain"] == images.id_domain]
    best_rows = table.loc[table.groupby(["method", "shots"], sort=False)["validation"].idxmax()]
    return best_rows[best_rows["method"].isin(names) & best_rows["shots"].isin(numbers)]


def next_value(grid: tuple[float, ...], found: Mapping[float, float]) -> float:
    """What to try after the values in `found`, which holds the validation accuracy of each."""
    if left := [value for value in grid if value not in found]:
        return left[0]
    tried = sorted(found)
    best = max(tried, key=lambda value: found[value])
    place = tried.index(best)
    if place in (0, len(tried) - 1):
        step = grid[1] / grid[0]
        value = best * step if place else best / step
    else:
        value = math.sqrt(best * max(tried[place - 1], tried[place + 1], key=lambda value: found[value]))
    return float(f"{value:.2g}")


def run_variants(
    domain: str, names: Iterable[str], grids: Mapping[str, Sequence[float]], run: VariantRun, path: Path, seeds: int
) -> pd.DataFrame:
    """Run every variant over seeds, with the value in its grid that did best in a run of `SEED` on ID validation.

    A run is given its key, id_domain, variant, value (0 without a grid) and seed, and the best values found, none while
    they are searched. Returns the means of `run_all` by variant.
    """

    def keys(values: Iterable[tuple[str, float]], seed: int) -> list[Key]:
        return [{"id_domain": domain, "variant": name, "value": value, "seed": seed} for name, value in values]

    tried = keys([(name, value) for name, grid in grids.items() for value in grid], SEED)
    found = run_missing(tried, partial(run, values={}), path).query("id_domain == @domain and seed == @SEED")
    found = found.sort_values("value", kind="stable")
    best = found.loc[found.groupby("variant")["accuracy"].idxmax()].set_index("variant")["value"].to_dict()
    wanted = [(name, best.get(name, 0.0)) for name in names]
    every = [key for seed in range(seeds) for key in keys(wanted, seed)]
    return run_all(every, partial(run, values=best), path, ["variant"])
