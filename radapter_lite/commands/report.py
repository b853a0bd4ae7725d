"""What `tune` and `sweep` end with: a table to read, a CSV file and a figure."""

from pathlib import Path

import pandas as pd


def table(sweep: pd.DataFrame, metric: str = "accuracy") -> str:
    """A metric in percent as lines of text: a row a domain and the mean of the OOD ones, a column for each α."""
    wide = sweep.pivot(index="domain", columns="alpha", values=metric).loc[sweep["domain"].unique()]
    is_id = sweep.groupby("domain")["is_id"].first().loc[wide.index]
    wide.index = pd.Index([f"{domain} (ID)" if is_id[domain] else domain for domain in wide.index])
    if (~is_id).sum() > 1:
        wide.loc["mean of OOD"] = wide[~is_id.to_numpy()].mean()
    wide.columns = pd.Index([f"{alpha:g}" for alpha in wide.columns], name="α")
    return wide.to_string(float_format="{:.1f}".format)


def write(sweep: pd.DataFrame, base: Path, id_domain: str, metric: str = "accuracy") -> None:
    """Write `base`.csv, .svg and .png; the folder is made where it is missing."""
    import matplotlib.pyplot as plt

    from radapter_lite.files import make_folder, write_text
    from radapter_lite.view import plots

    make_folder(base.parent)
    write_text(base.with_name(base.name + ".csv"), sweep.round(4).to_csv(index=False))
    plots.use_style()
    with plt.rc_context():
        figure, axis = plt.subplots(figsize=(6.5, 4))
        plots.plot_along_alpha(axis, sweep, id_domain, metric)
        alt = f"{metric.capitalize()} of every domain as alpha goes from the zero-shot model to the tuned one."
        plots.save_figure(figure, base.name, base.parent, alt)
        plt.close(figure)
