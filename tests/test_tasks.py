"""The seam of tasks: classification moved into it unchanged, and another task goes all the way without a change."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import make_backbone, make_folder

from radapter_lite import METHODS, AlphaCurve, evaluate, load_clip, load_images, sweep, tune
from radapter_lite.alpha_curve import layer_profile
from radapter_lite.bench import Exam
from radapter_lite.data import ImageSet
from radapter_lite.settings import by_name, with_settings
from radapter_lite.tasks import Classification, Task, as_task
from radapter_lite.tasks.task import ImageBatches

BEFORE = json.loads((Path(__file__).parent / "before_tasks.json").read_text())
QUICK = {"epochs": 3, "batch_size": 8, "lr": 3e-3, "warmup_steps": 2, "precision": "float32", "seed": 3}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("tasks") / "shapes", ("photo", "sketch"), 10)
    return load_images(folder, id_domain="photo")


@pytest.mark.parametrize("name", BEFORE)
def test_classification_is_what_it_was_before_there_were_tasks(images, name, monkeypatch):
    """Losses and similarities of every method at a fixed seed, as the code gave them that knew classes alone."""
    monkeypatch.setattr("radapter_lite.methods.r_adapter.check_momentum", lambda *_: None)
    settings = (QUICK if METHODS[name].trains else {}) | {"temperature": 0.05, "init_text": None}
    if name == "R-Adapter":
        settings["momentum"] = 0.8
    known = by_name(METHODS[name].config)
    config = with_settings(METHODS[name].config, {key: settings[key] for key in settings if key in known})
    backbone = make_backbone()
    tuned = METHODS[name].tune(backbone, images.few_shot(5), config)
    assert tuned.history["loss"].tolist() == pytest.approx(BEFORE[name]["loss"], rel=1e-3, abs=1e-3)
    found = tuned.similarities(backbone, images.test)[:12].flatten()[::3]
    torch.testing.assert_close(found, torch.tensor(BEFORE[name]["similarities"]), rtol=1e-3, atol=2e-3)


# --- a task that is no classification ---


@dataclass(frozen=True, eq=False)
class Naming:
    """Every image has a text of its own, of its class and its number; its score is recall at 2."""

    images: ImageSet
    pool: tuple[str, ...]  # all texts
    metric = "recall at 2"

    @property
    def names(self):
        return self.pool

    @property
    def _own(self):
        wanted = (f"{c} {Path(f).stem}" for c, f in self.images.table[["class", "file"]].to_numpy())
        return torch.tensor([self.pool.index(text) for text in wanted])

    def on(self, images):
        return replace(self, images=images)

    def texts(self, backbone):
        return [[text] if number % 2 else [text, f"a {text}"] for number, text in enumerate(self.pool)]

    def batches(self, backbone, config):
        return ImageBatches(backbone, self.images, self._own, config)

    def score(self, similarities, zero_shot=None):
        found = (similarities.topk(2).indices == self._own[:, None]).any(1).numpy() * 100.0
        table = pd.DataFrame({"domain": self.images.table["domain"], self.metric: found})
        table = table.groupby("domain", sort=False)[self.metric].agg(["mean", "size"]).reset_index()
        table.columns = ["domain", self.metric, "images"]
        table.insert(1, "is_id", table["domain"] == self.images.id_domain)
        return table.sort_values("is_id", ascending=False, ignore_index=True)

    def right(self, answers):
        return answers == self._own


@pytest.fixture
def naming(images):
    pool = dict.fromkeys(f"{c} {Path(f).stem}" for c, f in images.table[["class", "file"]].to_numpy())
    return Naming(images, tuple(pool))


TAKES_ANY = [name for name in METHODS if name not in ("LP-FT", "linear probe", "Tip-Adapter", "Tip-Adapter-F")]


@pytest.mark.parametrize("name", TAKES_ANY)
def test_a_task_of_ones_own_goes_from_tuning_to_a_sweep(naming, images, name):
    assert isinstance(naming, Task) and as_task(naming) is naming
    backbone = make_backbone()
    short = {"epochs": 1} | ({"momentum": 0.5} if "momentum" in by_name(METHODS[name].config) else {})
    short |= {"init_text": None} if "init_text" in by_name(METHODS[name].config) else {}
    short |= {"context_length": 2} if "context_length" in by_name(METHODS[name].config) else {}
    tuned = tune(backbone, naming.on(images.few_shot(3)), name, **short)
    table = sweep(backbone, tuned, naming.on(images.test))
    assert "recall at 2" in table and set(table["alpha"]) >= {0.0, 1.0}
    assert tuned.similarities(backbone, naming.on(images.test)).shape == (len(images.test), len(naming.pool))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in TAKES_ANY])
def test_a_head_refuses_a_task_without_classes(naming, images, name):
    with pytest.raises(ValueError, match="makes a head for classes, and Naming has none: choose a method"):
        tune(make_backbone(), naming.on(images.few_shot(3)), name)


def test_curves_maps_profiles_sliders_and_benches_take_any_task(naming, images):
    from radapter_lite.view.sliders import alpha_slider, encoder_map

    backbone = make_backbone()
    tuned = tune(backbone, naming.on(images.few_shot(3)), epochs=2, momentum=0.5, lr=1e-2)
    task = naming.on(images.test)
    curve = AlphaCurve.measure(backbone, tuned.delta, task, nodes=5)
    swept = sweep(backbone, tuned, task, [0.0, 1.0])
    interpolated = curve.sweep(task, [0.0, 1.0])
    assert interpolated["recall at 2"].tolist() == pytest.approx(swept["recall at 2"].tolist())
    assert len(layer_profile(backbone, tuned.delta, task)) == 3 + 2
    table = encoder_map(curve, task, steps=3).table
    corner = table[(table["image_alpha"] == 1) & (table["text_alpha"] == 1)]["id"].item()
    assert corner == pytest.approx(swept.query("alpha == 1 and is_id")["recall at 2"].item())
    slider = alpha_slider({"R-Adapter": curve}, task)
    slider.slider.value = 1.0
    assert "recall at 2" in slider._ways["R-Adapter"].chart.style or slider.picture.value
    rows = Exam.prepare(backbone, naming).measure(tuned, (0.0, 1.0), method="R-Adapter")
    assert {"recall at 2", "confidence", "split"} <= set(rows)


def test_what_is_neither_images_nor_a_task_is_refused():
    with pytest.raises(TypeError, match="expected an ImageSet, .* or a task over one, not a str"):
        evaluate(make_backbone(), "photos")


def test_a_set_of_images_means_its_classification(images):
    task = as_task(images.test)
    assert isinstance(task, Classification) and task.names == images.classes
    backbone = make_backbone()
    pd.testing.assert_frame_equal(evaluate(backbone, task), evaluate(backbone, images.test))


# --- prompts belong to the backbone ---


def test_pictoclip_under_another_name_is_as_good():
    clip, images = load_clip(), load_images().select(domain="outline", split="test")
    found = evaluate(replace(clip, name="mine"), images)
    pd.testing.assert_frame_equal(found, evaluate(clip, images))
    assert found["accuracy"].item() == pytest.approx(50.8, abs=0.1)


def test_prompts_reach_training_and_scoring(images):
    backbone = make_backbone()
    other = replace(backbone, prompts=("the color {}",))
    few = images.few_shot(3)
    tuned = [tune(each, few, "FLYP", epochs=1) for each in (backbone, other)]
    assert (tuned[0].history["loss"] != tuned[1].history["loss"]).any()
    assert tuned[1].meta["prompts"] == ["the color {}"]
    asked = [tuned[0].similarities(each, images.test) for each in (backbone, other)]
    assert (asked[0] - asked[1]).abs().max() > 1e-3
