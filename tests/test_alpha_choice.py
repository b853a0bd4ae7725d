"""Rules that choose α without OOD labels, and the statistics they read."""

import math

import pandas as pd
import pytest
import torch
from conftest import make_folder

from radapter_lite.alpha_choice import (
    RULES,
    compare_rules,
    difference_of_confidences,
    highest,
    one_standard_error,
    unlabelled_statistics,
)
from radapter_lite.data import load_images
from radapter_lite.results import load_results


@pytest.fixture
def images(tmp_path):
    return load_images(make_folder(tmp_path, ("photo", "sketch")), id_domain="photo").select(split="test")


def test_the_highest_is_found_in_any_order_and_ties_go_to_the_least_changed():
    assert highest([1.0, 0.0, 0.5], [3, 1, 2]) == 1.0
    assert highest([1.0, 0.0, 0.5], [3, 1, 3]) == 0.5


@pytest.mark.parametrize(("images", "expected"), [(100, 0.2), (100_000, 0.6)])
def test_one_standard_error_is_the_binomial_one(images, expected):
    """At 80% of 100 images it is 4 points: 77% at α = 0.2 is within it; of 100,000 images it is 0.13."""
    sweep = pd.DataFrame({"alpha": [0, 0.2, 0.6, 1], "accuracy": [75, 77, 80, 79], "images": images})
    assert one_standard_error(sweep, sweep) == expected


def test_statistics_of_certain_and_of_empty_predictions(images):
    uniform = torch.zeros(len(images), 3)
    table = unlabelled_statistics(uniform, images, uniform, 0.01)
    assert list(table["domain"]) == images.domains
    assert table["confidence"].tolist() == pytest.approx([100 / 3] * len(table))
    assert table["entropy"].tolist() == pytest.approx([math.log(3)] * len(table))
    assert table["information"].tolist() == pytest.approx([0] * len(table), abs=1e-9)

    certain = torch.eye(3)[images.labels]  # every class as often as its images, without any doubt
    table = unlabelled_statistics(certain, images, certain, 0.01).set_index("domain")
    for domain in images.domains:
        shares = images.select(domain=domain).table["class"].value_counts(normalize=True)
        assert table.loc[domain, "confidence"] == pytest.approx(100)
        assert table.loc[domain, "information"] == pytest.approx(-sum(p * math.log(p) for p in shares))


def test_confidence_rewards_calling_all_the_same_and_information_does_not(images):
    same = torch.eye(3)[torch.zeros(len(images), dtype=torch.long)]
    table = unlabelled_statistics(same, images, same, 0.01)
    assert (table["confidence"] > 99).all() and (table["information"] < 1e-6).all()


def test_agreement_counts_the_images_that_keep_their_class(images):
    zero_shot = torch.eye(3)[images.labels]
    moved = zero_shot.clone()
    sketches = (images.table["domain"] == "sketch").to_numpy().nonzero()[0]
    moved[sketches[0]] = moved[sketches[0]].roll(1)
    table = unlabelled_statistics(moved, images, zero_shot, 0.01).set_index("domain")["agreement"]
    assert table["photo"] == 100
    assert table["sketch"] == pytest.approx(100 * (1 - 1 / len(sketches)))


def test_the_expected_accuracy_falls_as_far_as_the_confidence():
    """Certainty that holds on ID images and on the target alike does not count; certainty that is lost does."""
    validation = pd.DataFrame({"alpha": [0.0, 0.5, 1.0], "accuracy": [50, 60, 62], "confidence": [90, 70, 60]})
    target = pd.DataFrame({"alpha": [1.0, 0.5, 0.0], "confidence": [50, 69, 80]})
    assert difference_of_confidences(validation, target) == 0.5  # 40, 59 and 52 are expected
    assert difference_of_confidences(validation, target.assign(confidence=[60, 70, 90])) == 1.0


def sweeps() -> pd.DataFrame:
    """One run on one ID and one OOD domain, in which every rule comes to another α."""
    alphas = [0.0, 0.2, 0.5, 0.8, 1.0]
    about = {"method": "R-Adapter", "shots": 16, "seed": 0, "images": 100, "alpha": alphas, "entropy": 1.0}
    flat = {"confidence": 50.0, "information": 1.0}
    parts = [
        {"split": "validation", "domain": "photo", "is_id": True, "accuracy": [60, 78, 79, 81, 80]}
        | {"confidence": [90.0, 80, 80, 60, 95], "information": 1.0},
        {"split": "test", "domain": "photo", "is_id": True, "accuracy": [60, 70, 75, 80, 81], **flat},
        {"split": "test", "domain": "sketch", "is_id": False, "accuracy": [50, 58, 60, 57, 40]}
        | {"confidence": [40, 50, 60, 70, 80], "information": [1.0, 1.1, 1.4, 1.3, 0.9]},
    ]
    return pd.concat([pd.DataFrame(about | part) for part in parts], ignore_index=True)


def test_rules_against_the_oracle():
    result = compare_rules(sweeps())
    sketch = result[result["domain"] == "sketch"].set_index("rule")
    assert sketch["alpha"].to_dict() == {
        "zero-shot": 0.0,
        "fixed 0.5": 0.5,
        "tuned": 1.0,
        "highest ID validation": 0.8,
        "one standard error": 0.2,
        "confidence": 1.0,
        "information": 0.5,
        "difference of confidences": 0.8,
        "oracle": 0.5,
    }
    assert sketch["left"].to_dict() == {
        "zero-shot": 10,
        "fixed 0.5": 0,
        "tuned": 20,
        "highest ID validation": 3,
        "one standard error": 2,
        "confidence": 20,
        "information": 0,
        "difference of confidences": 3,
        "oracle": 0,
    }
    assert (result[result["rule"] == "oracle"]["left"] == 0).all() and (result["left"] >= 0).all()


def test_a_table_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="no column information"):
        compare_rules(sweeps().drop(columns="information"))
    with pytest.raises(ValueError, match="ID validation rows"):
        compare_rules(sweeps().query("split == 'test'"))
    with pytest.raises(ValueError, match="0.5"):
        compare_rules(sweeps().query("alpha != 0.5"))


@pytest.mark.parametrize(
    ("name", "id_domain", "rows", "metric"),
    [
        ("retrieval", "camera", "texts == 'captions'", "recall"),
        ("segmentation", "outline", "masks == 'oracle'", "miou"),
    ],
)
def test_rules_choose_alpha_for_every_tasks_metric(name, id_domain, rows, metric):
    saved = load_results(name, id_domain=id_domain).query(rows).assign(shots=16)
    rules = compare_rules(saved, metric)
    assert set(rules["rule"]) == set(RULES) and (rules["left"] >= 0).all()
    assert (rules[rules["rule"] == "oracle"]["left"] == 0).all()
