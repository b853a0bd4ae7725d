"""What `tune` and `sweep` end with: a table to read, CSV files, figures, and a page that holds them all."""

import base64
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from radapter_lite.assets import filled
from radapter_lite.calibration import calibration, class_changes
from radapter_lite.files import make_folder, write_text
from radapter_lite.view import plots


def table(sweep: pd.DataFrame, metric: str = "accuracy") -> str:
    """A metric in percent as lines of text: a row a domain and the mean of the OOD ones, a column for each α."""
    named = sweep["domain"].where(~sweep["is_id"], sweep["domain"] + " (ID)")
    wide = sweep.assign(domain=named).pivot(index="domain", columns="alpha", values=metric).loc[named.unique()]
    if len(ood := wide.index.intersection(named[~sweep["is_id"]])) > 1:
        wide.loc["mean of OOD"] = wide.loc[ood].mean()
    wide = wide.rename(columns="{:g}".format).rename_axis(index=None, columns="α")
    return wide.to_string(float_format="{:.1f}".format)


def sentences(answers: pd.DataFrame) -> str:
    """How far confidence is from accuracy along α, and which classes change most, a line each for ID and OOD."""
    errors, lines = calibration(answers), []
    for is_id, own in class_changes(answers).groupby("is_id", sort=False):
        error = errors[errors["is_id"] == is_id].groupby("alpha")["error"].mean().iloc[[0, -1]]
        sure = " to ".join(f"{value:.1f}% at α = {alpha:g}" for alpha, value in error.items())
        named, change = own["class"] + own["change"].map(" {:+.0f}".format), own["change"]
        won, lost = (", ".join(named[sign * change > 0][::sign][:3]) or "none" for sign in (1, -1))
        place = "ID" if is_id else "OOD"
        lines.append(f"{place}: calibration error {sure}; most won (points): {won}; most lost: {lost}.")
    return "\n".join(lines)


def write(sweep: pd.DataFrame, answers: pd.DataFrame, base: Path, id_domain: str, metric: str = "accuracy") -> None:
    """Write .csv, .svg and .png of `base`, `base`_calibration and `base`_classes, and a page of all, `base`.html."""
    make_folder(base.parent)
    plots.use_style()
    with plt.rc_context():
        figure, axis = plt.subplots(figsize=(6.5, 4))
        plots.plot_along_alpha(axis, sweep, id_domain, metric)
        along = f"{metric.capitalize()} of every domain as alpha goes from the zero-shot model to the tuned one."
        parts = {
            "": (sweep, figure, along),
            "_calibration": (calibration(answers), plots.plot_calibration(answers), "Calibration and reliability."),
            "_classes": (class_changes(answers), plots.plot_class_changes(answers), "Classes won and classes lost."),
        }
        figures = []
        for end, (rows, drawn, alt) in parts.items():
            write_text(f"{base}{end}.csv", rows.round(4).to_csv(index=False))
            plots.save_figure(drawn, base.name + end, base.parent, alt)
            plt.close(drawn)
            figures.append((base64.b64encode(Path(f"{base}{end}.svg").read_bytes()).decode(), alt))
    page = filled("report.html", table=table(sweep, metric), sentences=sentences(answers), figures=figures)
    write_text(f"{base}.html", page)
