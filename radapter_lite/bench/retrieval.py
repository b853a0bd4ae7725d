"""Retrieval: tuned on few images and one of their captions each, measured on both ways of finding, along α.

The captions are those of the icons' authors. `annotations` are a second source, which nothing was tuned on: what
Unicode's annotators wrote of the emoji of an image's class, beside its name.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from radapter_lite.backbone import Backbone
from radapter_lite.bench.ablations import INFO_NCE
from radapter_lite.bench.few_shot import ALPHAS
from radapter_lite.bench.runs import Exam, Key, run_all
from radapter_lite.data import ImageSet
from radapter_lite.data.table import SEPARATOR
from radapter_lite.methods.registry import METHODS, recommended
from radapter_lite.settings import with_settings
from radapter_lite.tasks.retrieval import Retrieval

SHOTS = 16
# By name in the results, the method and what is changed in its recommended settings, which are classification's.
COMPARED = {name: (name, dict[str, Any]()) for name in ("R-Adapter", "R-Adapter, stem", "FLYP", "LoRA")}
COMPARED["R-Adapter, InfoNCE"] = ("R-Adapter", INFO_NCE)


def run_retrieval(
    backbone: Backbone, images: ImageSet, path: Path, methods: list[str] | None = None, seeds: int = 3
) -> pd.DataFrame:
    """Run what `path` does not hold yet; returns the means of `run_all` by texts and method.

    Rows are `Exam.measure`'s, with id_domain, method, seed and texts: "captions" or, where there are some,
    "annotations". Raises ValueError for a method that is none of `COMPARED`.
    """
    if unknown := set(methods or ()) - set(COMPARED):
        raise ValueError(f"bench retrieval has no {', '.join(sorted(unknown))}; it compares {', '.join(COMPARED)}")
    names = methods or COMPARED
    keys = [{"id_domain": images.id_domain, "method": name, "seed": seed} for seed in range(seeds) for name in names]
    exams = {"captions": Exam.prepare(backbone, Retrieval.of(images))}
    if len(noted := annotated(images)):
        exams["annotations"] = Exam.prepare(backbone, Retrieval.of(noted, "annotations"))

    def run(key: Key) -> pd.DataFrame:
        method, changed = COMPARED[key["method"]]
        config = with_settings(recommended(method, backbone, SHOTS, key["seed"], images.id_domain), changed)
        tuned = METHODS[method].tune(backbone, Retrieval.of(images.few_shot(SHOTS, key["seed"])), config)
        return pd.concat([exam.measure(tuned, ALPHAS, **key, texts=name) for name, exam in exams.items()])

    return run_all(keys, run, path, ["texts", "method"], "recall")


def annotated(images: ImageSet) -> ImageSet:
    """PictoShift's images but the emoji, with what is said of the emoji of their class: a column `annotations`.

    The class's own name is left out, and so are the images of a class of which nothing else is said.
    """
    emoji = images.table[images.table["domain"] == "emoji"]
    words = emoji.assign(word=emoji["captions"].str.split(SEPARATOR, regex=False)).explode("word")
    others = words[words["word"] != words["class"]]
    notes = others.groupby("class")["word"].agg(lambda own: SEPARATOR.join(sorted({*own})))
    table = images.table.assign(annotations=images.table["class"].map(notes))
    kept = table[table["annotations"].notna() & (table["domain"] != "emoji")]
    return replace(images, table=kept.reset_index(drop=True))
