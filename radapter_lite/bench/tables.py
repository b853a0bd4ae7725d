"""The README's table, and what it says of who is ahead, made of the saved results."""

import pandas as pd

from radapter_lite.statistics import mean_and_interval, summarize

COMPARED = (4, 16)  # shots at which every method was run


def results_table(results: pd.DataFrame) -> str:
    """A README's table from `few_shot`, as Markdown: ID and OOD mean by method, shots and α, with intervals.

    R-Adapter, with and without its stem, and FLYP at every number of shots; at 16 also between α = 0 and 1, which for
    FLYP is WiSE-FT.
    """
    shown = ("R-Adapter", "R-Adapter, stem", "FLYP")
    results = results[(results["split"] == "test") & results["method"].isin(shown)]
    by_seed = summarize(results, ["method", "shots", "seed", "alpha"])
    start = by_seed[by_seed["alpha"] == 0][["id", "ood"]].mean()
    kept = by_seed[(by_seed["alpha"] == 1) | (by_seed["alpha"].isin((0.5, 0.75)) & (by_seed["shots"] == 16))]
    table = mean_and_interval(kept, ["method", "shots", "alpha"])
    table = table.sort_values(["shots", "method", "alpha"], ascending=[True, False, True])
    lines = [
        f"| method | shots | α | ID ({results.loc[results['is_id'], 'domain'].iloc[0]}) | OOD mean | seeds |",
        "|---|---|---|---|---|---|",
    ]
    lines.append(f"| zero-shot | 0 | 0 | {start['id']:.1f} | {start['ood']:.1f} | |")
    for row in table.itertuples():
        method = "WiSE-FT over FLYP" if row.method == "FLYP" and row.alpha < 1 else row.method
        lines.append(
            f"| {method} | {row.shots} | {row.alpha:g} | {row.id:.1f} ± {row.id_ci:.1f} | "
            f"{row.ood:.1f} ± {row.ood_ci:.1f} | {row.seeds} |"
        )
    return "\n".join(lines)


def who_is_ahead(results: pd.DataFrame) -> str:
    """The README's sentences from `few_shot` on who reaches more than R-Adapter, one for each of `COMPARED` shots.

    To reach more is to have the higher mean over seeds of ID and of OOD accuracy, as tuned (α = 1).
    """
    tuned = results[(results["split"] == "test") & ~(results["alpha"] < 1)]  # α is NaN where there is none
    tuned = tuned.assign(note=tuned["alpha"].isna().map({True: "; no α", False: ""}))
    by_seed = summarize(tuned, ["method", "shots", "note", "seed"])
    means = by_seed.groupby(["method", "shots", "note"])[["id", "ood"]].mean().round(6).reset_index()
    sentences = []
    for shots in COMPARED:
        table = means[means["shots"] == shots].set_index("method")
        if "R-Adapter" not in table.index:
            continue
        own = table.loc["R-Adapter"]
        ahead = table[(table["id"] > own["id"]) & (table["ood"] > own["ood"])].sort_values("ood")[::-1]
        named = [f"{row.Index} (ID {row.id:.1f}, OOD {row.ood:.1f}{row.note})" for row in ahead.itertuples()]
        who = " and ".join(part for part in (", ".join(named[:-1]), *named[-1:]) if part) or "no method"
        verb = "reach" if len(named) > 1 else "reaches"
        sentences.append(
            f"At {shots} shots, {who} {verb} more than R-Adapter, both ID and OOD, of {len(table)} measured."
        )
    return "\n".join(sentences)
