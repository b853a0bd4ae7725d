"""Methods that put a head, a probe or a cache on CLIP's features, each against a second computation."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import features, make_backbone, make_folder, make_inputs
from sklearn.linear_model import LogisticRegression

from radapter_lite.backbone import load_clip
from radapter_lite.data import load_images
from radapter_lite.encoding import image_features, predict, text_head
from radapter_lite.methods import METHODS as METHODS_OF_THE_KIT
from radapter_lite.methods.heads import (
    ClipAdapterConfig,
    FeatureAdapter,
    LinearProbeConfig,
    LpFtConfig,
    TipAdapterConfig,
    clip_adapter,
    linear_probe,
    lp_ft,
    tip_adapter,
)
from radapter_lite.methods.whitening import inverse_root
from radapter_lite.training import TrainingConfig

TRAINING = TrainingConfig(epochs=10, batch_size=8, lr=3e-3, crop=0.9)  # 2 steps an epoch
STILL = TrainingConfig(epochs=1, batch_size=64, lr=1e-12, min_lr=1e-12, crop=1.0, flip=False)  # one step
TRAINED = {
    "CLIP-Adapter": (clip_adapter, ClipAdapterConfig(replace(TRAINING, lr=3e-2), temperature=0.05)),
    "LP-FT": (lp_ft, LpFtConfig(training=replace(TRAINING, lr=1e-3), C=1.0)),
    "Tip-Adapter-F": (tip_adapter, TipAdapterConfig(training=TRAINING, temperature=0.05)),
}
UNTRAINED = {"linear probe": (linear_probe, LinearProbeConfig()), "Tip-Adapter": (tip_adapter, TipAdapterConfig())}
METHODS = TRAINED | UNTRAINED


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load_images(make_folder(tmp_path_factory.mktemp("heads"))).few_shot(5)  # 3 x 5


@pytest.fixture
def backbone():
    return make_backbone()


def accuracy(similarities, images):
    return (similarities.argmax(1) == images.labels).float().mean()


def is_untouched(backbone, before):
    state = backbone.model.state_dict()
    return (
        state.keys() == before.keys()
        and all(torch.equal(state[name], before[name]) for name in state)
        and all(p.requires_grad and p.grad is None for p in backbone.model.parameters())
        and not backbone.model.training
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_point_names_itself_and_leaves_the_backbone_as_it_was(name, images, backbone):
    tune, config = METHODS[name]
    before = copy.deepcopy(backbone.model.state_dict())
    state = torch.get_rng_state()
    point = METHODS_OF_THE_KIT[name].tune(backbone, images, config)
    first = point.similarities(backbone, images)
    assert point.method == name
    assert first.shape == (len(images), 3) and not first.requires_grad
    assert is_untouched(backbone, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(
        METHODS_OF_THE_KIT[name].tune(make_backbone(), images, config).similarities(backbone, images), first
    )  # the same bits again
    with pytest.raises(ValueError, match=f"{name} learns no change of CLIP's own weights"):
        _ = point.delta
    assert list(point.history) == ["step", "epoch", "loss", "lr", "seconds"]
    assert (len(point.history) > 0) == (name in TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_training_lowers_the_loss_and_raises_the_training_accuracy(name, images, backbone):
    tune, config = TRAINED[name]
    point = tune(backbone, images, config)
    assert len(point.history) == 20
    assert point.history["loss"].tail(4).mean() < 0.9 * point.history["loss"].head(4).mean()
    assert accuracy(point.similarities(backbone, images), images) > accuracy(predict(backbone, images), images)
    other = tune(backbone, images, replace(config, training=replace(config.training, seed=1)))
    assert not torch.equal(other.similarities(backbone, images), point.similarities(backbone, images))


@pytest.mark.parametrize("name", TRAINED)
def test_an_error_in_training_leaves_the_backbone_as_it_was(name, images, backbone, monkeypatch):
    tune, config = TRAINED[name]
    before = copy.deepcopy(backbone.model.state_dict())
    encode, calls = backbone.model.encode_image, iter(range(100))

    def failing(images, normalize=False):
        if len(images) <= 8 and next(calls) == 5:
            raise KeyboardInterrupt
        return encode(images, normalize=normalize)

    monkeypatch.setattr(backbone.model, "encode_image", failing)
    with pytest.raises(KeyboardInterrupt):
        tune(backbone, images, config)
    assert is_untouched(backbone, before)


@pytest.mark.parametrize("name", TRAINED)
def test_an_interrupted_training_ends_in_the_same_bits(name, images, backbone, monkeypatch, tmp_path):
    tune, config = TRAINED[name]
    whole = tune(backbone, images, config).similarities(backbone, images)
    encode, calls = backbone.model.encode_image, iter(range(100))

    def failing(images, normalize=False):
        if len(images) <= 8 and next(calls) == 5:
            raise KeyboardInterrupt
        return encode(images, normalize=normalize)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(backbone.model, "encode_image", failing)
        tune(backbone, images, config, checkpoint=tmp_path / "run.pt")
    resumed = tune(backbone, images, config, checkpoint=tmp_path / "run.pt")
    assert torch.equal(resumed.similarities(backbone, images), whole)
    assert len(resumed.history) == 20


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("linear probe", 3 * (32 + 1)),
        ("CLIP-Adapter", 2 * 32 * 8),
        ("Tip-Adapter", 0),
        ("Tip-Adapter-F", 15 * 32),
        ("LP-FT", sum(p.numel() for p in make_backbone().model.visual.parameters()) + 3 * (32 + 1)),
    ],
)
def test_trained_parameters_are_counted(name, count, images, backbone):
    tune, config = METHODS[name]
    if name in TRAINED:
        config = replace(config, training=STILL)
    assert tune(backbone, images, config).trained_parameters == count


@pytest.mark.parametrize("name", ["linear probe", "LP-FT", "Tip-Adapter", "Tip-Adapter-F"])
def test_a_head_refuses_images_of_other_classes(name, images, backbone):
    tune, config = METHODS[name]
    if name in TRAINED:
        config = replace(config, training=STILL)
    point = METHODS_OF_THE_KIT[name].tune(backbone, images, config)
    with pytest.raises(ValueError, match=f"{name} has a head for its 3 training classes .dark blue, green, red"):
        point.similarities(backbone, replace(images, classes=["red", "green", "dark blue"]))


# --- zero-shot ---


def test_zero_shot_takes_the_backbones_prompts(images, backbone):
    bare = predict(replace(backbone, prompts=("{}",)), images)
    with torch.no_grad():
        words = backbone.model.encode_text(backbone.tokenizer(images.classes), normalize=True)
    torch.testing.assert_close(bare, image_features(backbone, images) @ words.T, rtol=0, atol=1e-6)
    assert (bare - predict(backbone, images)).abs().max() > 1e-3


# --- linear probe and LP-FT ---


def test_the_probe_is_scikit_learns_logistic_regression(images, backbone):
    found = linear_probe(backbone, images, LinearProbeConfig(C=3.0)).similarities(backbone, images)
    x = image_features(backbone, images).double().numpy()
    reference = LogisticRegression(C=3.0, max_iter=2000).fit(x, images.table["class"])
    assert list(reference.classes_) == images.classes
    probabilities = (found / backbone.temperature).softmax(1)
    np.testing.assert_allclose(probabilities, reference.predict_proba(x), atol=1e-5)


def test_a_whitened_probe_is_fitted_on_features_that_are_equally_loud(images, backbone):
    found = linear_probe(backbone, images, C=3.0, whitening=0.1).similarities(backbone, images)
    x = image_features(backbone, images).double()
    x = (x @ inverse_root(x.T @ x / len(x), 0.1)).numpy()
    reference = LogisticRegression(C=3.0, max_iter=2000).fit(x, images.table["class"])
    probabilities = (found / backbone.temperature).softmax(1)
    np.testing.assert_allclose(probabilities, reference.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("name", ["linear probe", "LP-FT"])
def test_alpha_mixes_a_head_with_zero_shots(name, images, backbone):
    tuned = METHODS[name][0](backbone, images, METHODS[name][1])
    ends = predict(backbone, images), tuned.similarities(backbone, images)
    assert torch.equal(tuned.similarities(backbone, images, 0.0), ends[0])
    near = tuned.similarities(backbone, images, 1e-6)
    torch.testing.assert_close(near, ends[0], rtol=0, atol=1e-3)
    if name == "linear probe":  # its features stay, so that it is linear in α
        middle = tuned.similarities(backbone, images, 0.25)
        torch.testing.assert_close(middle, ends[0].lerp(ends[1], 0.25), rtol=1e-4, atol=1e-4)
    for odd in (1.5, {"image": 0.5}):
        with pytest.raises(ValueError, match=f"the α of {name} is one number from 0 to 1"):
            tuned.similarities(backbone, images, odd)
    with pytest.raises(ValueError, match=f"{name} learns no change of CLIP's own weights alone, so it has no delta;"):
        _ = tuned.delta


@pytest.mark.parametrize("kept", [["red", "dark blue"], ["red", "green"]])
def test_a_class_without_images_keeps_its_column(kept, images, backbone):
    some = images.select(classes=kept)
    x = image_features(backbone, some).double().numpy()
    reference = LogisticRegression(C=100.0, max_iter=2000).fit(x, some.table["class"])
    columns = [images.classes.index(name) for name in reference.classes_]
    for tune, config in (
        (linear_probe, LinearProbeConfig()),
        (lp_ft, LpFtConfig(training=replace(TRAINING, epochs=2))),
        (lp_ft, LpFtConfig(training=STILL)),
    ):
        point = tune(backbone, some, config)
        logits = point.similarities(backbone, some) / backbone.temperature
        assert logits.shape == (len(some), 3) and torch.isfinite(logits[:, columns]).all()
        absent = next(label for label in range(3) if label not in columns)
        assert (logits[:, absent] == -math.inf).all()
    # The last of them has not moved: it is still the probe.
    np.testing.assert_allclose(logits.softmax(1)[:, columns], reference.predict_proba(x), atol=1e-4)


def test_a_probe_of_one_class_is_refused(images, backbone):
    with pytest.raises(ValueError, match="of two classes or more; these 5 are all of one"):
        linear_probe(backbone, images.select(classes=["red"]), LinearProbeConfig())
    with pytest.raises(ValueError, match="C must be a number above 0, not 0"):
        LpFtConfig(C=0)


def test_lp_ft_starts_at_the_probe_and_moves_the_image_encoder(images, backbone):
    τ = backbone.temperature
    probe = linear_probe(backbone, images, LinearProbeConfig(C=1.0)).similarities(backbone, images)
    start = lp_ft(backbone, images, LpFtConfig(training=STILL, C=1.0))
    torch.testing.assert_close(start.similarities(backbone, images), probe, rtol=0, atol=1e-5)
    expected = torch.nn.functional.cross_entropy(probe / τ, images.labels)
    assert start.history["loss"].iloc[0] == pytest.approx(expected.item(), abs=1e-5)

    inputs = make_inputs(backbone.model)
    zero_shot_features = features(backbone.model, inputs)
    seen = []
    point = lp_ft(backbone, images, TRAINED["LP-FT"][1])
    handle = backbone.model.visual.register_forward_hook(lambda *_: seen.append(features_of_text(backbone)))
    point.similarities(backbone, images)
    handle.remove()
    torch.testing.assert_close(seen[0], features_of_text(backbone), rtol=0, atol=0)  # the text encoder stays
    assert torch.equal(features(backbone.model, inputs), zero_shot_features)
    assert (point.similarities(backbone, images) - probe).abs().max() / τ > 0.1


def features_of_text(backbone):
    with torch.no_grad():
        return backbone.model.encode_text(backbone.tokenizer(["red"]))


def test_lp_ft_takes_its_weights_out_after_an_error_too(images, backbone):
    point = lp_ft(backbone, images, LpFtConfig(training=replace(TRAINING, epochs=1)))
    before = copy.deepcopy(backbone.model.state_dict())

    def fail(file):
        raise OSError("no such image")

    broken = replace(images, _read=fail, _tensors=type(images._tensors)())
    with pytest.raises(OSError, match="no such image"):
        point.similarities(backbone, broken)
    assert is_untouched(backbone, before)


# --- CLIP-Adapter ---


def test_clip_adapter_by_hand(images, backbone):
    config = ClipAdapterConfig(STILL, reduction=8, residual_ratio=0.3, temperature=0.05)
    point = clip_adapter(backbone, images, config)
    torch.manual_seed(config.training.seed)
    w1 = torch.nn.Linear(32, 4, bias=False).weight.detach().numpy()
    w2 = torch.nn.Linear(4, 32, bias=False).weight.detach().numpy()
    f, g = image_features(backbone, images).numpy(), text_head(backbone, images.classes).numpy()
    adapted = np.maximum(np.maximum(f @ w1.T, 0) @ w2.T, 0)
    mixed = 0.3 * adapted + 0.7 * f
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    np.testing.assert_allclose(point.similarities(backbone, images), mixed @ g.T, atol=1e-6)
    assert np.abs(mixed - f).max() > 1e-3
    logits = mixed @ g.T / 0.05
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(f)), images.labels]
    assert point.history["loss"].iloc[0] == pytest.approx(loss.mean(), abs=1e-4)


def test_clip_adapter_sees_directions_alone():
    torch.manual_seed(0)
    adapter, x = FeatureAdapter(32, 4, 0.2), torch.randn(5, 32)
    torch.testing.assert_close(adapter(7 * x), adapter(x))


# --- Tip-Adapter ---


def test_tip_adapter_by_a_loop(images, backbone):
    others = images.take(range(0, 15, 2))
    config = TipAdapterConfig(cache_ratio=2.0, beta=3.0, temperature=0.02)
    found = tip_adapter(backbone, others, config).similarities(backbone, images)
    keys, f = image_features(backbone, others).tolist(), image_features(backbone, images).tolist()
    head = text_head(backbone, images.classes).tolist()

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    for row, feature in enumerate(f):
        logits = [dot(feature, vector) / 0.02 for vector in head]
        for key, label in zip(keys, others.labels.tolist(), strict=True):
            logits[label] += 2.0 * math.exp(-3.0 * (1 - dot(feature, key)))
        np.testing.assert_allclose(found[row] / backbone.temperature, logits, atol=1e-3)


def test_tip_adapter_f_begins_as_tip_adapter(images, backbone):
    still = tip_adapter(backbone, images, TipAdapterConfig(training=STILL, beta=2.0))
    plain = tip_adapter(backbone, images, TipAdapterConfig(beta=2.0))
    torch.testing.assert_close(
        still.similarities(backbone, images), plain.similarities(backbone, images), rtol=0, atol=1e-4
    )
    logits = plain.similarities(backbone, images) / backbone.temperature
    expected = torch.nn.functional.cross_entropy(logits, images.labels)
    assert still.history["loss"].iloc[0] == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TipAdapterConfig(cache_ratio=0), "cache_ratio must be a number above 0"),
        (lambda: TipAdapterConfig(beta=-1), "beta must be a number above 0"),
        (lambda: ClipAdapterConfig(temperature=0), "temperature must be a number above 0"),
        (lambda: ClipAdapterConfig(residual_ratio=1.5), "residual_ratio must lie in"),
        (lambda: ClipAdapterConfig(reduction=0), "reduction must be a whole number of 1 or more"),
        (lambda: LinearProbeConfig(max_iter=0), "max_iter must be a whole number of 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- on the embedded backbone ---


def test_on_pictograms_each_learns_its_training_images():
    backbone, pictures = load_clip(), load_images()
    images = replace(pictures, classes=pictures.classes[:6]).select(classes=pictures.classes[:6]).few_shot(2)
    training = TrainingConfig(epochs=3, batch_size=12, lr=1e-3, precision="bfloat16")
    before = accuracy(predict(backbone, images), images)
    for tune, config in (
        (linear_probe, LinearProbeConfig()),
        (lp_ft, LpFtConfig(training=replace(training, lr=1e-4))),
        (tip_adapter, TipAdapterConfig(cache_ratio=20.0)),
        (tip_adapter, TipAdapterConfig(cache_ratio=20.0, training=training)),
        (clip_adapter, ClipAdapterConfig(replace(training, epochs=16, lr=3e-2))),
    ):
        point = tune(backbone, images, config)
        assert point.similarities(backbone, images).dtype == torch.float32
        assert accuracy(point.similarities(backbone, images), images) > before, point.method
