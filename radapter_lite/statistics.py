"""Tables over seeds: means with intervals, and comparing methods fairly, seed by seed and at equal ID accuracy."""

from collections.abc import Iterable

import numpy as np
import pandas as pd


def summarize(results: pd.DataFrame, by: list[str], metric: str = "accuracy") -> pd.DataFrame:
    """ID score and the unweighted mean over OOD domains (`id`, `ood`), for each group of the columns `by`.

    Without OOD domains `ood` is NaN.
    """
    id_part = results[results["is_id"]].groupby(by, sort=False)[metric].mean().rename("id")
    ood_part = results[~results["is_id"]].groupby(by, sort=False)[metric].mean().rename("ood")
    return pd.concat([id_part, ood_part.reindex(id_part.index)], axis=1).reset_index()


def mean_and_interval(values: pd.DataFrame, by: list[str], columns: Iterable[str] = ("id", "ood")) -> pd.DataFrame:
    """Mean over seeds and half the width of its 95% t-interval (`id`, `id_ci`, …), with the number of seeds."""
    from scipy.stats import t

    groups = values.groupby(by, sort=False)
    table = groups.size().rename("seeds").to_frame()
    for column in columns:
        table[column] = groups[column].mean()
        table[f"{column}_ci"] = groups[column].sem() * t.ppf(0.975, table["seeds"] - 1)
    return table.reset_index()


def paired_differences(
    values: pd.DataFrame, reference: pd.DataFrame, by: list[str], columns: Iterable[str] = ("id", "ood")
) -> pd.DataFrame:
    """Differences to a reference over the seeds that both have: what a seed does to both of them cancels.

    Both tables have seed and `columns`; the values a row for each group of `by` and seed, the reference a row a seed.
    Returns `mean_and_interval` of the differences, with p-values (`id_p`, …) of a two-sided t-test: NaN for one seed, 1
    where all differences are zero. Raises ValueError if the reference has a seed twice, or no seed of the values.
    """
    from scipy.stats import t

    names = list(columns)
    if reference["seed"].duplicated().any():
        raise ValueError("the reference has several rows for a seed: keep one method, α and number of shots")
    both = values.merge(reference[["seed", *names]], on="seed", suffixes=("", "_reference"))
    if not len(both):
        raise ValueError("the reference has none of the seeds: compare runs of the same seeds")
    for name in names:
        both[name] -= both[f"{name}_reference"]
    table = mean_and_interval(both, by, names)
    for name in names:
        statistic = table[name].abs() / table[f"{name}_ci"] * t.ppf(0.975, table["seeds"] - 1)
        table[f"{name}_p"] = 2 * t.sf(statistic, table["seeds"] - 1)
        table.loc[(table[name] == 0) & (table[f"{name}_ci"] == 0), f"{name}_p"] = 1.0
    return table


def over_images(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """How sure a difference in accuracy is, over other seeds and over other test images of the same kind.

    The tables are rows of `bench.run_by_image` of one method and α each, of the same seeds. Over images, the difference
    of each image, the mean over seeds, is bootstrapped within its domain.

    Returns:
        ID, then the mean over OOD domains: is_id, points, over_seeds, over_images and over_both: halves of 95%
        intervals in points; the last is for both at once, which add up as squares.
    """
    from scipy.stats import bootstrap

    both = ours.merge(theirs, on=["seed", "domain", "is_id"], suffixes=("", "_theirs"))
    rows = []
    for is_id, part in both.sort_values("is_id", ascending=False).groupby("is_id", sort=False):
        runs = part.assign(points=part["accuracy"] - part["accuracy_theirs"]).groupby("seed")["points"].mean()
        seeds = mean_and_interval(runs.reset_index().assign(of=0), ["of"], ["points"]).iloc[0]
        errors = []
        for _, domain in part.groupby("domain"):
            right, other = (np.array([[*marks] for marks in domain[name]]) == "x" for name in ("right", "right_theirs"))
            each = 100 * (right.astype(float) - other).mean(0)  # (N,), a domain's images
            errors.append(bootstrap((each,), np.mean, n_resamples=2000, method="percentile", rng=0).standard_error)
        images = 1.96 * np.sqrt(np.square(errors).sum()) / len(errors)
        rows.append((is_id, seeds["points"], seeds["points_ci"], images, np.hypot(seeds["points_ci"], images)))
    return pd.DataFrame(rows, columns=["is_id", "points", "over_seeds", "over_images", "over_both"])


def compared(value: float, half: float, above: str = "ahead by", below: str = "behind by", unit: str = "") -> str:
    """What a difference and half of its interval's width say in words: one way, the other, or not told apart."""
    if abs(value) > half:
        return f"{above if value > 0 else below} {abs(value):.1f} ± {half:.1f}{unit}"
    found = f"{value:+.1f} ± {half:.1f}{unit}" if half == half else f"one seed: {value:+.1f}"  # NaN: no interval
    return f"not told apart ({found})"


def ood_at_id(curve: pd.DataFrame, target: float) -> float:
    """OOD accuracy where a run's curve, columns alpha, id and ood, first has the ID accuracy `target`; else NaN.

    All are in percent; the curve is linear between its points.
    """
    points = curve.sort_values("alpha")[["id", "ood"]].to_numpy(float)
    for (id_before, ood_before), (id_after, ood_after) in zip(points, points[1:], strict=False):
        if min(id_before, id_after) <= target <= max(id_before, id_after):
            share = (target - id_before) / (id_after - id_before) if id_after != id_before else 0.0
            return float(ood_before + share * (ood_after - ood_before))
    return float("nan")


def significant(p_values: pd.Series, level: float = 0.05) -> pd.Series:
    """Which of several p-values are below `level` after Holm's correction; NaN counts as 1.

    The smallest is held against level / n, the next against level / (n - 1), and so on until one fails: the chance
    that even one of the differences called significant is none stays below `level`. Source: Holm 1979.
    """
    ordered = p_values.fillna(1.0).sort_values()
    passed = ordered.to_numpy() <= level / np.arange(len(ordered), 0, -1)
    return pd.Series(np.logical_and.accumulate(passed), index=ordered.index).reindex(p_values.index)
