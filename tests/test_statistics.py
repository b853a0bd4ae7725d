"""Comparisons over seeds and at equal ID accuracy, against SciPy and against lines drawn by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from radapter_lite.statistics import compared, ood_at_id, over_images, paired_differences, significant


def runs(seeds: range, shift: float = 0.0) -> pd.DataFrame:
    noise = np.random.default_rng(1).normal(0, 3, (10, 2))[list(seeds)]
    return pd.DataFrame({"seed": list(seeds), "id": 60 + noise[:, 0] + shift, "ood": 40 + noise[:, 1] + shift})


def test_paired_differences_are_scipys_paired_t_test() -> None:
    reference, other = runs(range(5)), runs(range(5))
    other["id"] += [1.0, 2.0, 1.5, 0.5, 1.1]
    found = paired_differences(other.assign(method="b"), reference, ["method"]).iloc[0]
    expected = stats.ttest_rel(other["id"], reference["id"])
    low, high = expected.confidence_interval(0.95)
    assert found["id"] == pytest.approx((low + high) / 2) and found["id_ci"] == pytest.approx((high - low) / 2)
    assert found["id_p"] == pytest.approx(expected.pvalue)
    assert (found["ood"], found["ood_ci"], found["ood_p"]) == (0, 0, 1)


def test_only_seeds_that_both_have_are_compared() -> None:
    found = paired_differences(runs(range(2, 6), 1.0).assign(method="b"), runs(range(4)), ["method"]).iloc[0]
    assert found["seeds"] == 2 and found["id"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="none of the seeds"):
        paired_differences(runs(range(2)).assign(method="b"), runs(range(4, 6)), ["method"])
    with pytest.raises(ValueError, match="several rows for a seed"):
        paired_differences(runs(range(2)).assign(method="b"), pd.concat([runs(range(2))] * 2), ["method"])


def test_ood_at_an_id_accuracy_lies_on_the_curve() -> None:
    curve = pd.DataFrame({"alpha": [1.0, 0.0, 0.5], "id": [70.0, 50.0, 60.0], "ood": [40.0, 45.0, 47.0]})
    assert ood_at_id(curve, 50) == 45 and ood_at_id(curve, 55) == 46 and ood_at_id(curve, 65) == 43.5
    assert np.isnan(ood_at_id(curve, 71)) and np.isnan(ood_at_id(curve, 49))


def test_a_curve_that_falls_first_is_met_where_it_first_passes() -> None:
    curve = pd.DataFrame({"alpha": [0.0, 0.5, 1.0], "id": [50.0, 40.0, 60.0], "ood": [45.0, 43.0, 47.0]})
    assert ood_at_id(curve, 45) == 44 and ood_at_id(curve, 60) == 47


def test_holms_correction_stops_at_the_first_that_fails() -> None:
    found = significant(pd.Series([0.04, 0.001, np.nan, 0.02], index=list("abcd")))
    assert found.to_dict() == {"a": False, "b": True, "c": False, "d": False}
    assert significant(pd.Series([0.01, 0.02, 0.04])).tolist() == [True, True, True]


@pytest.mark.parametrize(
    ("value", "half", "told"),
    [
        (2.44, 1.9, "ahead by 2.4 ± 1.9"),
        (-2.44, 1.9, "behind by 2.4 ± 1.9"),
        (1.9, 1.94, "not told apart (+1.9 ± 1.9)"),
        (-0.2, 0.9, "not told apart (-0.2 ± 0.9)"),
        (3.0, float("nan"), "not told apart (one seed: +3.0)"),
        (0.0, 0.0, "not told apart (+0.0 ± 0.0)"),
    ],
)
def test_a_difference_is_told_as_what_its_interval_allows(value: float, half: float, told: str) -> None:
    assert compared(value, half) == told


def by_image(accuracy: float, seed: int, images: int, rng: np.random.Generator, is_id: bool = True) -> dict:
    right = rng.random(images) < accuracy
    marks = "".join("x" if each else "." for each in right)
    return {"seed": seed, "domain": f"{images}", "is_id": is_id, "accuracy": 100 * right.mean(), "right": marks}


def test_an_interval_over_images_is_that_of_the_differences() -> None:
    """Of two independent answers, the variance of a domain's mean is known; two domains halve each other's share."""
    rng, sizes = np.random.default_rng(0), {400: True, 100: False, 900: False}
    ours, theirs = (
        pd.DataFrame([by_image(p, seed, n, rng, is_id) for seed in range(3) for n, is_id in sizes.items()])
        for p in (0.7, 0.6)
    )
    found = over_images(ours, theirs)
    assert found["is_id"].tolist() == [True, False]
    variance = (0.7 * 0.3 + 0.6 * 0.4) / 3  # of an image's difference, the mean over three seeds
    known = [1.96 * 100 * np.sqrt(variance / 400), 1.96 * 100 * np.sqrt(variance / 100 + variance / 900) / 2]
    assert found["over_images"].tolist() == pytest.approx(known, rel=0.15)
    each = (ours["accuracy"] - theirs["accuracy"]).groupby([ours["is_id"], ours["seed"]]).mean()
    assert found["points"].tolist() == pytest.approx([each[True].mean(), each[False].mean()])
    assert (found["over_both"] > found[["over_seeds", "over_images"]].max(axis=1)).all()
