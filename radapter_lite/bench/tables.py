"""The README's tables, what it says of who is ahead, and the paper's claims, made of the saved results."""

from itertools import product
from pathlib import Path

import pandas as pd

from radapter_lite.assets import CLAIMS, filled
from radapter_lite.results import RESULTS, load_results
from radapter_lite.statistics import mean_and_interval, paired_differences, summarize

COMPARED = (4, 16)  # shots at which every method was run
# By the task's name: the saved results, what was tuned on, which rows, their metric, and which are the overview's ID.
TASKS = {
    "full data": ("full_data", "camera", "shots == 320", "accuracy", "is_id"),
    "few shots": ("few_shot", "camera", "shots == 16", "accuracy", "is_id"),
    "base to novel": ("base_to_novel", "camera", "is_id and part in ('base', 'novel')", "accuracy", "part == 'base'"),
    "retrieval": ("retrieval", "camera", "texts == 'captions'", "recall", "is_id"),
    "segmentation": ("segmentation", "outline", "masks == 'proposals'", "miou", "is_id"),
}
# By its name in the overview, a method and its α. All weights are tuned by FLYP's loss, for it serves every task.
WAYS = {"zero-shot": ("FLYP", 0.0), "fine-tuning": ("FLYP", 1.0), "WiSE-FT": ("FLYP", 0.5)}
WAYS["R-Adapter"] = ("R-Adapter", 0.5)


def results_table(results: pd.DataFrame) -> str:
    """A README's table from `few_shot`, as Markdown: ID and OOD mean by method, shots and α, with intervals.

    R-Adapter, with its stem and without, and FLYP, at 16 shots also between α = 0 and 1: there FLYP is WiSE-FT.
    """
    results = results.query("split == 'test' and method in ('R-Adapter', 'R-Adapter, stem', 'FLYP')")
    by_seed = summarize(results, ["method", "shots", "seed", "alpha"])
    start = by_seed.query("alpha == 0")[["id", "ood"]].mean()
    kept = by_seed.query("alpha == 1 or alpha in (0.5, 0.75) and shots == 16")
    table = mean_and_interval(kept, ["method", "shots", "alpha"])
    table = table.sort_values(["shots", "method", "alpha"], ascending=[True, False, True])
    id_domain = results.loc[results["is_id"], "domain"].iloc[0]
    return filled("tables/results.md", id_domain=id_domain, start=start, rows=table.itertuples())


def who_is_ahead(results: pd.DataFrame) -> str:
    """The README's sentences from `few_shot` on who reaches more than R-Adapter at each of `COMPARED` shots.

    Then, by name alone, on who reaches more than it does unwhitened, the paper's form. To reach more is to have the
    higher mean over seeds of ID and of OOD accuracy, as tuned (α = 1).
    """
    tuned = results.query("split == 'test' and not alpha < 1")  # α is NaN where there is none
    tuned = tuned.assign(note=tuned["alpha"].isna().map({True: "; no α", False: ""}))
    by_seed = summarize(tuned, ["method", "shots", "note", "seed"])
    means = by_seed.groupby(["method", "shots", "note"])[["id", "ood"]].mean().round(6).reset_index()
    found = []
    for shots, name in product(COMPARED, ("R-Adapter", "R-Adapter, unwhitened")):
        table = means[means["shots"] == shots].set_index("method")
        if name in table.index:
            own = table.loc[name]
            ahead = table[(table["id"] > own["id"]) & (table["ood"] > own["ood"])].sort_values("ood")[::-1]
            found.append((shots, name, [*ahead.itertuples()], len(table)))
    return filled("tables/ahead.md", found=found)


def overview(folder: Path = RESULTS) -> pd.DataFrame:
    """Every task by every one of `WAYS`, a row a seed: task, way, seed, id and ood (percent).

    Of base to novel, `id` is accuracy on base classes and `ood` on novel ones, both on ID images.
    """
    parts = []
    for task, (name, tuned_on, kept, metric, is_id) in TASKS.items():
        rows = load_results(name, folder, tuned_on).query(f"split == 'test' and {kept}")
        by_seed = summarize(rows.assign(is_id=rows.eval(is_id)), ["method", "alpha", "seed"], metric)
        for way, (method, alpha) in WAYS.items():
            parts.append(by_seed.query(f"method == {method!r} and alpha == {alpha}").assign(task=task, way=way))
    return pd.concat(parts, ignore_index=True)[["task", "way", "seed", "id", "ood"]]


def overview_table(by_seed: pd.DataFrame) -> str:
    """`overview` as Markdown, ID / OOD with 95% intervals over seeds, and in a sentence how R-Adapter did in each task.

    It is ahead of, or behind, WiSE-FT where the difference over the same seeds is larger than its interval.
    """
    tasks: list[tuple[str, pd.DataFrame, list[tuple[str, float, float, str]]]] = []
    for task, own in by_seed.groupby("task", sort=False):
        ours, theirs = (own[own["way"] == way] for way in ("R-Adapter", "WiSE-FT"))
        found = paired_differences(ours, theirs, ["way"]).iloc[0]
        pairs = {column.upper(): (found[column], found[f"{column}_ci"]) for column in ("id", "ood")}
        told = [(name, *pair, _verdict(*pair, "ahead", "behind")) for name, pair in pairs.items()]
        tasks.append((str(task), mean_and_interval(own, ["way"]), told))
    verdicts = [verdict for _, _, told in tasks for *_, verdict in told]
    return filled("tables/overview.md", ways=by_seed["way"].unique(), tasks=tasks, verdicts=verdicts)


def claims(folder: Path = RESULTS, id_domains: tuple[str, ...] = ("outline", "camera")) -> pd.DataFrame:
    """A row for each claim and setting: says, paper, id_domain, points, interval, seeds, verdict.

    A row of `CLAIMS` says that `ours` is above `theirs`, two queries of saved `results`, in `column`: id, ood, or held,
    which is OOD at α = 1 less the most along α, 0 for a curve that does not fall. Points are ours less theirs, paired
    over seeds, with a 95% interval; paper is its own number of them. A claim holds, or its contrary does, where the
    interval excludes zero; else the two are not told apart. Two seeds are too few to say.
    """
    rows = []
    for claim in pd.read_csv(CLAIMS, keep_default_na=False).itertuples():
        for place in id_domains:
            saved = load_results(claim.results, folder, place).query("split == 'test'")
            ours, theirs = (_by_seed(saved.query(query), claim.column) for query in (claim.ours, claim.theirs))
            found = paired_differences(ours, theirs, ["of"], ["value"]).iloc[0]
            points, interval, seeds = found["value"], found["value_ci"], int(found["seeds"])
            verdict = _verdict(points, interval, "holds", "the contrary holds") if seeds > 2 else "too few seeds"
            rows.append((claim.says, claim.paper, place, points, interval, seeds, verdict))
    return pd.DataFrame(rows, columns=["says", "paper", "id_domain", "points", "interval", "seeds", "verdict"])


def claims_table(found: pd.DataFrame) -> str:
    """`claims` as Markdown, a row a claim and a column a setting, and how many of each verdict there are."""
    said = found.apply(lambda row: f"{row.points:+.1f} ± {row.interval:.1f}: {row.verdict}", axis=1)
    cells = found.assign(said=said).pivot_table("said", ["says", "paper"], "id_domain", aggfunc="first", sort=False)
    counts = found.groupby("id_domain", sort=False)["verdict"].value_counts().items()
    return filled("tables/claims.md", cells=cells, counts=counts)


def _by_seed(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column, a row a seed: of, seed, value."""
    if column != "held":
        return summarize(rows, ["seed"]).rename(columns={column: "value"}).assign(of="claim")
    curves = summarize(rows, ["seed", "alpha"]).groupby("seed")["ood"]
    return (curves.last() - curves.max()).rename("value").reset_index().assign(of="claim")


def _verdict(value: float, half: float, above: str, below: str) -> str:
    return above if value > half else below if -value > half else "not told apart"
