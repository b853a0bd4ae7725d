"""PictoCLIP's zero-shot figures: those of the model card, and those the kit needs.

The card, `radapter_lite/assets/model_card.json`, is written after pretraining and holds
{"zero_shot": {domain: top-1 accuracy in percent on the test images}}.
"""

import json

import pytest

from radapter_lite.assets import PICTOSHIFT as ARCHIVE
from radapter_lite.backbone import load_clip
from radapter_lite.data import load_images
from radapter_lite.encoding import predict
from radapter_lite.tasks.classification import accuracy_by_domain

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images():
    return load_images().select(split="test")


@pytest.fixture(scope="module")
def similarities(images):
    return predict(load_clip("picto"), images)


@pytest.fixture(scope="module")
def measured(images, similarities):
    return accuracy_by_domain(similarities, images).set_index("domain")


def test_zero_shot_figures_are_those_of_the_model_card(measured):
    card = json.loads(ARCHIVE.with_name("model_card.json").read_text(encoding="utf-8"))["zero_shot"]
    assert card.keys() == set(measured.index)
    for domain, accuracy in card.items():
        two_images = 200 / measured.loc[domain, "images"]  # another processor may round a close call otherwise
        assert measured.loc[domain, "accuracy"] == pytest.approx(accuracy, abs=max(0.5, two_images)), domain


def test_zero_shot_is_good_enough_to_begin_with_and_leaves_something_to_gain(measured):
    assert 45 <= measured.loc["outline", "accuracy"] <= 75
    assert measured.loc[~measured["is_id"], "accuracy"].mean() >= 33


def test_concepts_often_seen_in_pretraining_are_known(images, similarities):
    right = similarities.argmax(1) == images.labels
    seen = images.table["pretraining_pictograms"].to_numpy()
    outline = (images.table["domain"] == "outline").to_numpy()
    accuracy = {number: 100 * right[outline & (seen == number)].float().mean().item() for number in (2, 32)}
    assert accuracy[32] >= 70 and accuracy[2] < accuracy[32] - 20
