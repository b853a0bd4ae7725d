"""The paper's claims, each beside what the saved results say of it, in both settings of PictoShift."""

from pathlib import Path

import pandas as pd

from radapter_lite.assets import CLAIMS
from radapter_lite.results import RESULTS, load_results
from radapter_lite.statistics import paired_differences, summarize


def claims(folder: Path = RESULTS, id_domains: tuple[str, ...] = ("outline", "camera")) -> pd.DataFrame:
    """A row for each claim and setting: says, paper, id_domain, points, interval, seeds, verdict.

    A row of `CLAIMS` says that `ours` is above `theirs`, two queries of saved `results`, in `column`: id, ood, or held,
    which is OOD at α = 1 less the most along α, 0 for a curve that does not fall. Points are ours less theirs, paired
    over seeds, with a 95% interval; paper is its own number of them. A claim holds, or its contrary does, where the
    interval excludes zero; else the two are not told apart.
    """
    rows = []
    for claim in pd.read_csv(CLAIMS, keep_default_na=False).itertuples():
        for place in id_domains:
            saved = load_results(claim.results, folder, place).query("split == 'test'")
            ours, theirs = (_by_seed(saved.query(query), claim.column) for query in (claim.ours, claim.theirs))
            found = paired_differences(ours, theirs, ["of"], ["value"]).iloc[0]
            points, interval = found["value"], found["value_ci"]
            verdict = "holds" if points > interval else "the contrary holds" if -points > interval else "not told apart"
            rows.append((claim.says, claim.paper, place, points, interval, int(found["seeds"]), verdict))
    return pd.DataFrame(rows, columns=["says", "paper", "id_domain", "points", "interval", "seeds", "verdict"])


def claims_table(found: pd.DataFrame) -> str:
    """`claims` as Markdown, a row a claim and a column a setting, and how many of each verdict there are."""
    said = found.apply(lambda row: f"{row.points:+.1f} ± {row.interval:.1f}: {row.verdict}", axis=1)
    cells = found.assign(said=said).pivot_table("said", ["says", "paper"], "id_domain", aggfunc="first", sort=False)
    lines = [f"| claim | the paper | {' | '.join(cells)} |", "|---" * (2 + len(cells.columns)) + "|"]
    for (says, paper), row in cells.iterrows():
        lines.append(f"| {says} | {paper or '–'} | {' | '.join(row)} |")
    counts = found.groupby("id_domain", sort=False)["verdict"].value_counts().items()
    told = ", ".join(f"{place} {verdict}: {number}" for (place, verdict), number in counts)
    return "\n".join(lines) + f"\n\n{told}."


def _by_seed(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column, a row a seed: of, seed, value."""
    if column != "held":
        return summarize(rows, ["seed"]).rename(columns={column: "value"}).assign(of="claim")
    curves = summarize(rows, ["seed", "alpha"]).groupby("seed")["ood"]
    return (curves.last() - curves.max()).rename("value").reset_index().assign(of="claim")
