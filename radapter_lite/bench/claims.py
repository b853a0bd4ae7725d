"""The paper's claims, each beside what the saved results say of it, in both settings of PictoShift."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from radapter_lite.results import RESULTS, load_results
from radapter_lite.statistics import paired_differences, summarize


class Claim(NamedTuple):
    """A claim of the paper: that `ours` is above `theirs`, two queries of rows of the saved `results`, in `column`.

    The column is id, ood, or held, which is OOD at α = 1 less the most along α: 0 for a curve that does not fall. Of
    the paper's own number of points, "" where it has none.
    """

    says: str
    paper: str
    results: str
    ours: str
    theirs: str
    column: str


def _method(name: str, alpha: float) -> str:
    return f"method == '{name}' and alpha == {alpha} and shots == 16"


def _variant(name: str, alpha: float, momentum: float = 0.98) -> str:
    return f"variant == '{name}' and alpha == {alpha} and momentum == {momentum}"


OURS, TUNED, WISE = _method("R-Adapter", 0.5), _method("FLYP", 1.0), _method("FLYP", 0.5)
WHOLE, PLAIN, RESCALED = (
    _variant("R-Adapter", 0.5), _variant("adapter, InfoNCE", 1.0, 0.0), _variant("adapter, InfoNCE", 0.5, 0.0)
)  # fmt: skip
CLAIMS = (
    Claim("more OOD than fine-tuning", "+12.0", "few_shot", OURS, TUNED, "ood"),
    Claim("more ID than fine-tuning", "+1.3", "few_shot", OURS, TUNED, "id"),
    Claim("more OOD than WiSE-FT", "+1.8", "few_shot", OURS, WISE, "ood"),
    Claim("more ID than WiSE-FT", "+0.3", "few_shot", OURS, WISE, "id"),
    Claim("flatter in α than WiSE-FT", "", "few_shot", "method == 'R-Adapter'", "method == 'FLYP'", "held"),
    Claim("dropping adds OOD", "+1.9", "ablations", _variant("dropping, InfoNCE", 1.0, 0.0), PLAIN, "ood"),
    Claim("accumulation adds OOD", "", "ablations", _variant("adapter, InfoNCE", 1.0), PLAIN, "ood"),
    Claim("re-scaling adds OOD", "+5.8", "ablations", RESCALED, PLAIN, "ood"),
    Claim("re-scaling costs ID", "+1.0", "ablations", PLAIN, RESCALED, "id"),
    Claim("MPM-NCE adds OOD", "+0.6", "ablations", WHOLE, _variant("dropping, InfoNCE", 0.5), "ood"),
    Claim("MPM-NCE adds ID", "+1.1", "ablations", WHOLE, _variant("dropping, InfoNCE", 0.5), "id"),
    Claim("all of it adds OOD to re-scaling alone", "+0.8", "ablations", WHOLE, RESCALED, "ood"),
    Claim("a low rank keeps the ID of full rank", "", "few_shot", _method("R-Adapter, rank 4", 0.5), OURS, "id"),
)


def claims(folder: Path = RESULTS, id_domains: tuple[str, ...] = ("outline", "camera")) -> pd.DataFrame:
    """A row for each of `CLAIMS` and setting: says, paper, id_domain, points, interval, seeds, verdict.

    Points are ours less theirs, paired over seeds, with a 95% interval. A claim holds, or its contrary does, where the
    interval excludes zero; else the two are not told apart.
    """
    rows = []
    for claim in CLAIMS:
        for place in id_domains:
            saved = load_results(claim.results, folder, place).query("split == 'test'")
            both = [_by_seed(saved.query(query), claim.column) for query in (claim.ours, claim.theirs)]
            found = paired_differences(both[0], both[1], ["of"], ["value"]).iloc[0]
            points, interval = found["value"], found["value_ci"]
            verdict = "holds" if points > interval else "the contrary holds" if -points > interval else "not told apart"
            rows.append((claim.says, claim.paper, place, points, interval, int(found["seeds"]), verdict))
    return pd.DataFrame(rows, columns=["says", "paper", "id_domain", "points", "interval", "seeds", "verdict"])


def claims_table(found: pd.DataFrame) -> str:
    """`claims` as Markdown, a row a claim, the settings side by side, and how many of each verdict there are."""
    places = list(dict.fromkeys(found["id_domain"]))
    lines = [f"| claim | the paper | {' | '.join(places)} |", "|---" * (2 + len(places)) + "|"]
    for (says, paper), own in found.groupby(["says", "paper"], sort=False):
        cells = [f"{row.points:+.1f} ± {row.interval:.1f}: {row.verdict}" for row in own.itertuples()]
        lines.append(f"| {says} | {paper or '–'} | {' | '.join(cells)} |")
    counts = [f"{place}: {own.value_counts().to_dict()}" for place, own in found.groupby("id_domain")["verdict"]]
    return "\n".join(lines) + "\n\n" + "; ".join(counts).translate(str.maketrans("", "", "{}'")) + "."


def _by_seed(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The column of `Claim`, a row a seed: of, seed, value."""
    if column != "held":
        return summarize(rows, ["seed"]).rename(columns={column: "value"}).assign(of="claim")
    curves = summarize(rows, ["seed", "alpha"]).groupby("seed")["ood"]
    return (curves.last() - curves.max()).rename("value").reset_index().assign(of="claim")
