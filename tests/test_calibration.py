"""How sure models are and which classes they win and lose, against counts by hand and scikit-learn."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_backbone, make_folder
from sklearn.calibration import calibration_curve

from radapter_lite import tune
from radapter_lite.calibration import answers, calibration, class_changes, reliability
from radapter_lite.commands import report
from radapter_lite.data import load_images
from radapter_lite.delta import Delta
from radapter_lite.evaluation import examine, sweep
from radapter_lite.tasks import Classification, Retrieval


def told(rows: list[tuple], **columns: object) -> pd.DataFrame:
    """Answers written out: right, before, confidence, and perhaps class; of one α and domain."""
    names = ["right", "before", "confidence", "class"][: len(rows[0])]
    fixed = {"alpha": 1.0, "domain": "photo", "is_id": True} | columns
    return pd.DataFrame(rows, columns=names).assign(**fixed)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("calibration"), ("photo", "comic", "art"))
    return load_images(folder, id_domain="photo").select(split="test")


@pytest.fixture(scope="module")
def examined(images):
    backbone = make_backbone()
    delta = Delta.from_difference(backbone.model.state_dict(), make_backbone(seed=5).model)
    return examine(backbone, delta, images, (0.0, 0.5, 1.0)), sweep(backbone, delta, images, (0.0, 0.5, 1.0))


def test_the_error_is_that_by_hand():
    # Two bins: 2 images at 95% of which 1 is right (45 too much), 3 at 55% that are all right (45 too little).
    rows = [(True, True, 95.0), (False, True, 95.0)] + [(True, False, 55.0)] * 3
    assert calibration(told(rows))["error"].item() == pytest.approx((2 * 45 + 3 * 45) / 5)


def test_who_is_right_as_often_as_sure_is_calibrated_and_who_is_surer_is_not():
    rng = np.random.default_rng(0)
    sure = rng.uniform(20, 90, 20_000)
    right = rng.uniform(0, 100, 20_000) < sure
    table = pd.DataFrame({"right": right, "before": right, "confidence": sure, "domain": "a", "is_id": True})
    assert calibration(table.assign(alpha=0.0))["error"].item() < 1.5
    surer = calibration(table.assign(alpha=0.0, confidence=sure + 10))["error"].item()
    assert surer == pytest.approx(10, abs=1)


def test_the_diagram_is_scikit_learns():
    rng = np.random.default_rng(1)
    sure = np.concatenate([rng.uniform(0, 1, 500), [0.0, 1.0]])
    right = rng.uniform(0, 1, 502) < sure**2
    found = reliability(told([(r, r, 100 * s) for r, s in zip(right, sure, strict=True)]), ["alpha"])
    accuracy, confidence = calibration_curve(right, sure, n_bins=10)
    np.testing.assert_allclose(found["accuracy"], 100 * accuracy)
    np.testing.assert_allclose(found["confidence"], 100 * confidence)
    assert found["images"].sum() == 502


def test_domains_and_alphas_are_kept_apart():
    good, bad = told([(True, True, 100.0)] * 4), told([(False, True, 100.0)] * 4, domain="comic", is_id=False)
    found = calibration(pd.concat([good, bad, good.assign(alpha=0.0)])).set_index(["alpha", "domain"])["error"]
    assert found.to_dict() == {(0.0, "photo"): 0, (1.0, "comic"): 100, (1.0, "photo"): 0}


def test_similarities_are_divided_by_the_temperature(images):
    task = Classification(images)
    cosines = torch.rand(len(images), 3, generator=torch.Generator().manual_seed(0))
    found = answers(cosines, cosines, task, 0.05)
    assert np.allclose(found["confidence"], 100 * (cosines / 0.05).softmax(1).amax(1))
    unseen = torch.cat([cosines[:, :2], torch.full((len(images), 1), -torch.inf)], 1)  # a class without training images
    sure = 100 * (cosines[:, :2] / 0.05).softmax(1).amax(1)
    assert np.allclose(answers(unseen, cosines, task, 0.05)["confidence"], sure)


def test_a_head_is_as_sure_as_its_logits(images):
    backbone = make_backbone()
    probe = tune(backbone, images.select(domain="photo"), "linear probe", C=1e5)
    logits = probe.similarities(backbone, images) / backbone.temperature
    _, found = examine(backbone, probe, images)
    tuned = found[found["alpha"] == 1]
    assert np.allclose(tuned["confidence"], 100 * logits.softmax(1).amax(1))


def test_a_task_of_other_texts_is_asked_whether_answers_are_right(images):
    captioned = replace(
        images, table=images.table.assign(captions=images.table["class"] + " | " + "a " + images.table["class"])
    )
    task = Retrieval.of(captioned)
    similarities = torch.rand(len(images), len(task.names), generator=torch.Generator().manual_seed(0))
    found = answers(similarities, similarities, task, 0.05)
    said = [task.names[place].removeprefix("a ") for place in similarities.argmax(1)]
    assert (found["right"] == (images.table["class"] == said)).all() and 0 < found["right"].sum() < len(images)


def test_the_answers_are_those_that_the_sweep_counts(examined, images):
    (scores, found), swept = examined
    pd.testing.assert_frame_equal(scores, swept)
    assert len(found) == 3 * len(images)
    accuracy = 100 * found.groupby(["alpha", "domain"])["right"].mean()
    pd.testing.assert_series_equal(
        scores.set_index(["alpha", "domain"])["accuracy"].sort_index(), accuracy, check_names=False
    )
    start = found[found["alpha"] == 0]
    assert (start["right"] == start["before"]).all() and found["confidence"].between(100 / 3 - 1e-4, 100).all()


def test_what_classes_win_and_lose_adds_up_to_the_change_of_accuracy(examined):
    (_, found), _ = examined
    changes = class_changes(found)
    for is_id, own in changes.groupby("is_id"):
        answered = found[found["is_id"] == is_id]
        right = 100 * answered.groupby("alpha")["right"].mean()
        assert np.average(own["change"], weights=own["images"]) == pytest.approx(right[1.0] - right[0.0])
    np.testing.assert_allclose(changes["change"], changes["won"] - changes["lost"], atol=1e-9)


def test_classes_are_counted_and_ordered():
    rows = [(True, False, 50.0, "cat")] * 3 + [(False, True, 50.0, "cat"), (False, True, 50.0, "dog")]
    found = class_changes(told(rows)).set_index("class")
    assert found.index.tolist() == ["cat", "dog"]
    assert found.loc["cat", ["images", "won", "lost", "change"]].tolist() == [4, 75, 25, 50]
    assert found.loc["dog", ["images", "won", "lost", "change"]].tolist() == [1, 0, 100, -100]


def test_a_class_without_images_on_one_side_has_no_row_there(images):
    kept = images.take(np.flatnonzero((images.table["class"] != "red") | (images.table["domain"] == "photo")))
    found = answers(torch.eye(3)[kept.labels], torch.eye(3)[kept.labels], Classification(kept), 0.05)
    changes = class_changes(found.assign(alpha=1.0))
    assert set(changes.loc[changes["is_id"], "class"]) == set(images.classes)
    assert set(changes.loc[~changes["is_id"], "class"]) == set(images.classes) - {"red"}


@pytest.mark.parametrize(
    ("right", "before", "expected"),
    [
        (True, False, "most won (points): cat +100; most lost: none."),
        (False, True, "most won (points): none; most lost: cat -100."),
        (True, True, "most won (points): none; most lost: none."),
    ],
    ids=["won", "lost", "unchanged"],
)
def test_the_sentence_is_true_for_every_sign(right, before, expected):
    ends = [told([(kind, before, 80.0, "cat")] * 5, alpha=alpha) for alpha, kind in ((0.0, before), (1.0, right))]
    sentence = report.sentences(pd.concat(ends))
    assert sentence.endswith(expected) and "OOD" not in sentence
    errors = [20 if kind else 80 for kind in (before, right)]
    assert f"{errors[0]:.1f}% at α = 0 to {errors[1]:.1f}% at α = 1" in sentence


def test_the_report_writes_tables_figures_and_one_page(examined, tmp_path):
    (scores, found), _ = examined
    report.write(scores, found, tmp_path / "new" / "a.b", "photo")
    ends = ("", "_calibration", "_classes")
    names = {f"a.b{end}{kind}" for end in ends for kind in (".csv", ".svg", ".png")} | {"a.b.html"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "new" / "a.b_calibration.csv"), calibration(found).round(4), check_dtype=False
    )
    page = (tmp_path / "new" / "a.b.html").read_text(encoding="utf-8")
    assert (
        page.count("data:image/svg+xml;base64,") == 3 and "photo (ID)" in page and "http" not in page.split("<img")[0]
    )


def test_one_domain_and_one_alpha_are_a_report_too(images, tmp_path):
    backbone = make_backbone()
    delta = Delta.from_difference(backbone.model.state_dict(), make_backbone(seed=5).model)
    scores, found = examine(backbone, delta, images.select(domain="photo"), (1.0,))
    report.write(scores, found, tmp_path / "one", "photo")
    assert math.isfinite(calibration(found)["error"].item()) and len(class_changes(found)) == 3
