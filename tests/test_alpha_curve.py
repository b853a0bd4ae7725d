"""Interpolation along α against the model itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import fill, make_backbone, make_folder
from torch.nn import functional as F

from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.alpha_curve import (
    NODES,
    AlphaCurve,
    FeatureCurve,
    chebyshev_nodes,
    held_out_error,
    layer_profile,
    weights_at,
)
from radapter_lite.assets import DEMO_DELTA
from radapter_lite.backbone import Backbone, load_clip
from radapter_lite.bench import speed
from radapter_lite.data import ImageSet, load_images
from radapter_lite.delta import Delta
from radapter_lite.encoding import predict, text_head
from radapter_lite.evaluation import along, sweep
from radapter_lite.statistics import summarize
from radapter_lite.tasks import as_task
from radapter_lite.tasks.classification import accuracy_by_domain


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageSet:
    folder = make_folder(tmp_path_factory.mktemp("images"), ("photo", "sketch"))
    return load_images(folder, id_domain="photo").select(split="test")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="module")
def delta(backbone) -> Delta:
    adapters = AdapterSet(backbone.model, AdapterConfig())
    fill(adapters)
    delta = adapters.delta()
    adapters.remove()
    return delta


@pytest.fixture(scope="module")
def curve(backbone, delta, images) -> AlphaCurve:
    return AlphaCurve.measure(backbone, delta, images)


def test_polynomials_up_to_the_nodes_degree_are_exact():
    nodes = chebyshev_nodes(6)
    assert (nodes[0], nodes[-1]) == (0, 1)
    polynomial = np.polynomial.Polynomial([1, -2, 3, 0.5, -4, 2])
    for alpha in (0.0, 0.013, 0.5, 0.77, 1.0):
        assert weights_at(nodes, alpha) @ polynomial(nodes) == pytest.approx(polynomial(alpha), abs=1e-12)


def test_the_ends_are_the_models_own(backbone, delta, images, curve):
    for alpha in (0.0, 1.0):
        with delta.applied(backbone.model, alpha):
            torch.testing.assert_close(curve.at(alpha), predict(backbone, images), rtol=0, atol=0)


def test_between_the_nodes_it_is_the_model_and_better_with_more_nodes(backbone, delta, images, curve):
    alphas = (0.05, 0.33, 0.5, 0.91)
    errors = held_out_error({"curve": curve}, backbone, delta, images, alphas)
    assert list(errors["alpha"]) == list(alphas)
    assert errors["error"].max() < 1e-5
    assert (errors["changed"] == 0).all()
    coarse = curve.thinned(8)
    assert (
        held_out_error({"coarse": coarse}, backbone, delta, images, alphas)["error"].max() > 10 * errors["error"].max()
    )


def test_every_second_chebyshev_node_is_a_chebyshev_node(backbone, delta, images, curve):
    thin, small = curve.thinned(4), AlphaCurve.measure(backbone, delta, images, nodes=5)
    torch.testing.assert_close(thin.at(0.37), small.at(0.37), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="step must divide 16"):
        curve.thinned(3)


def test_the_error_is_the_largest_difference(backbone, delta, images, curve):
    """A curve that is wrong in one similarity is found out, by as much as it is wrong."""
    wrong = curve.text.values.clone()
    wrong[:, 0] = -wrong[:, 0]
    off = AlphaCurve(curve.image, FeatureCurve(curve.text.nodes, wrong), curve.temperature)
    exact = predict(backbone, images)
    found = held_out_error({"off": off}, backbone, delta, images, [0.0]).iloc[0]
    assert found["error"] == pytest.approx(2 * exact[:, 0].abs().max().item(), rel=1e-4)
    flipped = exact * torch.tensor([-1.0, 1.0, 1.0])
    changed = (flipped.argmax(1) != exact.argmax(1)).float().mean().item()
    assert found["changed"] == pytest.approx(100 * changed)


def test_each_encoder_has_its_own_alpha(backbone, delta, images, curve):
    for image, text in ((0.3, 0.8), (1.0, 0.0), (0.0, 0.45)):
        with delta.applied(backbone.model, {"image": image, "text": text}):
            torch.testing.assert_close(curve.at(image, text), predict(backbone, images), rtol=0, atol=2e-5)


def test_a_curve_of_pixels_and_of_free_class_names(backbone, delta, images, curve):
    pixels = images.tensor(backbone.preprocess, [0, 3])
    names = ["red", "an old boat"]
    small = AlphaCurve(
        FeatureCurve.of_images(backbone, delta, pixels),
        FeatureCurve.of_texts(backbone, delta, backbone.describe(names)),
        backbone.temperature,
    )
    with delta.applied(backbone.model, 0.4):
        with torch.no_grad():
            features = F.normalize(backbone.model.encode_image(pixels), dim=-1)
        exact = features @ text_head(backbone, names).T
    torch.testing.assert_close(small.at(0.4), exact, rtol=0, atol=2e-5)
    assert small.nbytes == 4 * NODES * (2 + 2) * features.shape[1]


def test_probabilities_are_at_the_backbones_own_temperature(backbone, delta, images, curve):
    model = backbone.model
    with torch.no_grad(), delta.applied(model, 0.4):
        pixels = images.tensor(backbone.preprocess, range(len(images)))
        logits = model.logit_scale.exp() * F.normalize(model.encode_image(pixels), dim=-1)
        exact = (logits @ text_head(backbone, images.classes).T).softmax(1)
    torch.testing.assert_close(curve.probabilities(0.4), exact, rtol=0, atol=1e-3)


def test_measuring_leaves_the_model_as_it_was(backbone, delta, images):
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    AlphaCurve.measure(backbone, delta, images, nodes=2)
    layer_profile(backbone, delta, images)
    with delta.applied(backbone.model, 0.7):
        AlphaCurve.measure(backbone, delta, images, nodes=2)
        changed = backbone.model.state_dict()
        assert not all(torch.equal(before[name], changed[name]) for name in before)
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.model.state_dict().items())


def test_a_sweep_along_the_curve_is_the_models_sweep(backbone, delta, images, curve):
    alphas = (0.0, 0.21, 1.0)
    columns = ["alpha", "domain", "is_id", "accuracy", "images"]
    exact = sweep(backbone, delta, images, alphas)
    assert curve.sweep(images, alphas)[columns].equals(exact[columns])


def test_eleven_nodes_answer_as_the_model_does_but_once_in_hundreds():
    clip, delta = load_clip(), Delta.load(DEMO_DELTA)
    test = load_images(id_domain="camera").test
    task = as_task(test.take(range(0, len(test), 8)))
    curve = AlphaCurve.measure(clip, delta, task, speed.NODES)
    changed = []
    for alpha, exact, _ in along(clip, delta, task, speed.POINTS):
        changed.append((curve.at(alpha).argmax(1) != exact.argmax(1)).float().mean().item())
    assert np.mean(changed) < 0.005 and max(changed) < 0.02


def test_the_map_holds_the_sweep_on_its_diagonal(images, curve):
    alphas = (0.0, 0.5, 1.0)
    table = curve.encoder_map(images, alphas)
    assert len(table) == 9
    path = table[table["image_alpha"] == table["text_alpha"]]
    one = summarize(curve.sweep(images, alphas), ["alpha"])
    assert path["id"].tolist() == pytest.approx(one["id"].tolist())
    assert path["ood"].tolist() == pytest.approx(one["ood"].tolist())
    corner = table[(table["image_alpha"] == 1) & (table["text_alpha"] == 0)].iloc[0]
    apart = accuracy_by_domain(curve.at(1.0, 0.0), images).set_index("domain")["accuracy"]
    assert (corner["id"], corner["ood"]) == pytest.approx((apart["photo"], apart["sketch"]))
    assert (table["mean"] == (table["id"] + table["ood"]) / 2).all()


def test_the_profile_of_layers_is_alpha_by_layer(backbone, delta, images):
    profile = layer_profile(backbone, delta, images)
    places = list(zip(profile["tower"], profile["layer"], strict=True))
    assert places == [("image", 0), ("image", 1), ("image", 2), ("text", 0), ("text", 1)]
    alphas = [0.0, *({f"{tower}.{layer}": 1.0} for tower, layer in places)]
    exact = exact_profile(backbone, delta, images, alphas)
    assert profile["id"].tolist() == exact["id"].tolist()[1:]
    assert profile["ood"].tolist() == exact["ood"].tolist()[1:]
    assert profile["ood_change"].tolist() == (exact["ood"] - exact["ood"][0]).tolist()[1:]


def exact_profile(backbone, delta, images, alphas):
    parts = []
    for number, alpha in enumerate(alphas):
        parts.append(sweep(backbone, delta, images, [alpha]).assign(number=number))
    return summarize(pd.concat(parts), ["number"])


@pytest.mark.parametrize("alpha", [-0.1, 1.2, float("nan")])
def test_an_alpha_outside_is_refused(curve, alpha):
    with pytest.raises(ValueError, match="alpha must be a number"):
        curve.at(alpha)


def test_one_node_is_refused(backbone, delta, images):
    with pytest.raises(ValueError, match="2 nodes"):
        AlphaCurve.measure(backbone, delta, images, nodes=1)
