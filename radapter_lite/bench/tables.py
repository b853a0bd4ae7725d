"""The README's table, made of the saved results."""

import pandas as pd

from radapter_lite.statistics import mean_and_interval, summarize


def results_table(results: pd.DataFrame) -> str:
    """The README's table from `few_shot`, as Markdown: ID and OOD mean by method, shots and α, with intervals.

    R-Adapter and FLYP at every number of shots; at 16 also their α = 0.5, which for FLYP is WiSE-FT.
    """
    results = results[(results["split"] == "test") & results["method"].isin(("R-Adapter", "FLYP"))]
    by_seed = summarize(results, ["method", "shots", "seed", "alpha"])
    start = by_seed[by_seed["alpha"] == 0][["id", "ood"]].mean()
    kept = by_seed[(by_seed["alpha"] == 1) | ((by_seed["alpha"] == 0.5) & (by_seed["shots"] == 16))]
    table = mean_and_interval(kept, ["method", "shots", "alpha"])
    table = table.sort_values(["shots", "method", "alpha"], ascending=[True, False, True])
    lines = ["| method | shots | α | ID (outline) | OOD mean | seeds |", "|---|---|---|---|---|---|"]
    lines.append(f"| zero-shot | 0 | 0 | {start['id']:.1f} | {start['ood']:.1f} | |")
    for row in table.itertuples():
        method = "WiSE-FT over FLYP" if (row.method, row.alpha) == ("FLYP", 0.5) else row.method
        lines.append(
            f"| {method} | {row.shots} | {row.alpha:g} | {row.id:.1f} ± {row.id_ci:.1f} | "
            f"{row.ood:.1f} ± {row.ood_ci:.1f} | {row.seeds} |"
        )
    return "\n".join(lines)
