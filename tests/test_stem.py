"""The stem trained along: one delta of adapters, or low-rank factors, and differences."""

import copy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import make_backbone, make_folder

from radapter_lite import load_clip, load_images, load_tuned, predict, tune
from radapter_lite.alpha import keys_of
from radapter_lite.alpha_curve import layer_profile
from radapter_lite.backbone.sites import in_stem
from radapter_lite.methods.r_adapter import Stem
from radapter_lite.view.comparison_plots import plot_layer_profile


def test_a_delta_may_mix_adapters_with_differences(tmp_path: Path) -> None:
    """What R-Adapter with a stem learns: one delta, with a key of its own for the stem."""
    clip, images = make_backbone(), load_images(make_folder(tmp_path / "shapes", images=8))
    before = copy.deepcopy(clip.model.state_dict())
    settings = {"epochs": 3, "momentum": 0.5, "precision": "float32"}
    tuned = tune(clip, images.few_shot(4), "R-Adapter, stem", **settings)
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())
    delta = tuned.delta
    stem = {name for name in delta.tensors if name in before}
    assert {"visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding"} <= stem
    assert all(parameter.requires_grad for parameter in clip.model.parameters() if parameter.ndim > 1)
    touched = delta.touched(before)
    with delta.applied(clip.model, {"image.stem": 1.0}):
        now = clip.model.state_dict()
        assert {name for name in before if not torch.equal(now[name], before[name])} == stem
    with delta.applied(clip.model, 0.5):
        now = clip.model.state_dict()
        for name in stem:
            assert torch.allclose(now[name], before[name] + 0.5 * delta.tensors[name])
        assert {name for name in before if not torch.equal(now[name], before[name])} <= set(touched)
    profile = layer_profile(clip, delta, images.test)
    assert profile["layer"].tolist()[0] == "stem" and set(profile["tower"]) == {"image", "text"}
    figure, axes = plt.subplots(1, 2)
    plot_layer_profile(axes, profile)
    assert axes[0].get_xticklabels()[0].get_text() == "stem"
    # Saved, loaded and exported, it answers as before.
    expected = tuned.similarities(clip, images, 0.7)
    tuned.save(tmp_path / "mixed")
    assert torch.equal(load_tuned(tmp_path / "mixed").similarities(clip, images, 0.7), expected)
    # The adapters alone are what they were without the stem's key.
    assert keys_of(touched)[:3] == ["image", "text", "image.stem"]


@pytest.mark.parametrize("given", [{"stem_lr": 1e-3}, {"whitening": 0.1}, {"stem_lr": 1e-3, "whitening": 0.1}])
def test_lora_may_have_what_r_adapter_has(given: dict, tmp_path: Path) -> None:
    clip, images = make_backbone(), load_images(make_folder(tmp_path / "shapes", images=8))
    settings = {"epochs": 2, "precision": "float32"}
    plain, tuned = (tune(clip, images.few_shot(4), "LoRA", **settings, **extra) for extra in ({}, given))
    assert ("visual.conv1.weight" in tuned.delta.tensors) == ("stem_lr" in given)
    assert {name for name in tuned.delta.tensors if name.endswith((".A", ".B"))} == set(plain.delta.tensors)
    zero, one = (tuned.similarities(clip, images, alpha) for alpha in (0.0, 1.0))
    assert torch.equal(zero, predict(clip, images)) and not torch.equal(zero, one)
    assert not torch.equal(one, plain.similarities(clip, images))
    if "whitening" in given:  # the merged model is the trained one: its last loss is that of what was saved
        assert tuned.history["loss"].iloc[-1] != plain.history["loss"].iloc[-1]


def test_a_stem_may_be_trained_alone(tmp_path: Path) -> None:
    clip, images = make_backbone(), load_images(make_folder(tmp_path / "shapes", images=8))
    settings = {"epochs": 2, "momentum": 0.5, "precision": "float32"}
    tuned = tune(clip, images.few_shot(4), "R-Adapter, stem", towers=(), **settings)
    assert set(tuned.delta.tensors) == {name for name in clip.model.state_dict() if in_stem(name)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-32", {"class_embedding", "positional_embedding", "conv1.weight", "ln_pre.weight", "ln_pre.bias"}),
        ("ViT-B-16-SigLIP", {"trunk.pos_embed", "trunk.patch_embed.proj.weight", "trunk.patch_embed.proj.bias"}),
    ],
)
def test_a_stem_is_what_comes_before_the_first_block(name: str, expected: set[str]) -> None:
    model = load_clip(name, "random").model
    assert {weight.removeprefix("visual.") for weight, _ in model.named_parameters() if in_stem(weight)} == expected


def test_a_model_without_a_known_stem_is_refused() -> None:
    with pytest.raises(ValueError, match="the image encoder .Linear. has no stem that is known: leave stem_lr out"):
        Stem(torch.nn.Linear(2, 2), 0.9)


def test_its_average_follows_the_weights_and_removing_gives_them_back() -> None:
    model = make_backbone().model
    before = copy.deepcopy(model.state_dict())
    stem = Stem(model, momentum=0.5)
    for _ in range(2):
        with torch.no_grad():
            for weight in stem.weights:
                weight += 1.0
        stem.accumulate()
    # Half of 1, then half of that and half of 2.
    assert all(torch.allclose(change, torch.tensor(1.25)) for change in stem.changes().values())
    stem.remove()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
