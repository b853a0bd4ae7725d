"""Deltas: merged against unmerged, α, exact restoring, files and export."""

import copy
import gc
import json
import math
import os
import weakref

import numpy as np
import open_clip
import pytest
import torch
from conftest import features, fill, make_clip, make_inputs, step
from torch import nn

from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.backbone import load_clip
from radapter_lite.delta import Delta, require_untouched


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def adapted(model, **settings):
    """A delta of filled adapters, and the features they gave unmerged."""
    inputs = make_inputs(model)
    adapters = AdapterSet(model, AdapterConfig(**settings))
    fill(adapters, scale=0.05)
    unmerged = features(model, inputs) if not adapters.eval().training else None
    delta = adapters.delta()
    adapters.remove()
    return delta, inputs, unmerged


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(model, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


# --- merging ---


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_merged_is_unmerged(any_clip, dtype, tolerance, rank):
    model = any_clip.to(dtype)
    zero_shot = features(model, make_inputs(model))
    delta, inputs, unmerged = adapted(model, rank=rank)
    delta.apply(model, 1.0)
    merged = features(model, inputs)
    assert relative(merged, unmerged) < tolerance
    assert relative(merged, zero_shot) > 1e-2  # it is no trivial agreement
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert relative(features(model, inputs), unmerged) < tolerance
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_live_and_averaged_weights_make_different_deltas(clip, inputs):
    adapters = AdapterSet(clip, AdapterConfig(drop_prob=0.0, momentum=0.9))
    optimizer = torch.optim.SGD(adapters.parameters(), lr=0.5)
    for _ in range(3):
        step(clip, adapters, inputs, optimizer)
    outputs = {"live": features(clip, inputs)}
    adapters.eval()
    outputs["averaged"] = features(clip, inputs)
    deltas = {"live": adapters.delta(averaged=False), "averaged": adapters.delta()}
    adapters.remove()
    for name, delta in deltas.items():
        with delta.applied(clip, 1.0):
            assert relative(features(clip, inputs), outputs[name]) < 1e-5
    assert relative(outputs["live"], outputs["averaged"]) > 1e-4


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_alpha_interpolates_the_weights(clip, alpha):
    """W_ens = α W_rep + (1 - α) W_org, with W_rep = W_org (W_adp + I) in the row-vector convention."""
    model = clip.double()
    before = bits(model)
    delta, *_ = adapted(model)
    delta.apply(model, alpha)
    for name, matrix in delta.tensors.items():
        weight, bias = (before[f"{name}.weight"].T, before[f"{name}.bias"])  # PyTorch stores the weight transposed
        to_tuned = matrix + torch.eye(len(matrix), dtype=matrix.dtype)
        merged = model.get_submodule(name)
        for found, original in ((merged.weight.T, weight), (merged.bias, bias)):
            expected = alpha * original @ to_tuned + (1 - alpha) * original
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    untouched = before.keys() - set(delta.touched(before))
    assert untouched and all(torch.equal(model.state_dict()[name], before[name]) for name in untouched)


def test_alpha_zero_and_restore_are_bit_for_bit(any_clip):
    before = bits(any_clip)
    delta, *_ = adapted(any_clip)
    for alpha in (0, 0.7, 0.0, 1.0, {"image": 0.5}):
        delta.apply(any_clip, alpha)
        assert same_bits(any_clip, before) == (alpha == 0)
    delta.restore(any_clip)
    assert same_bits(any_clip, before)
    delta.restore(any_clip)  # nothing to restore, nothing happens
    assert same_bits(any_clip, before)


def test_applying_is_not_cumulative_and_keeps_the_parameters(clip):
    delta, *_ = adapted(clip)
    parameters = [id(parameter) for parameter in clip.parameters()]
    delta.apply(clip, 0.4)
    once = bits(clip)
    for alpha in (1.0, 0.9, 0.4):
        delta.apply(clip, alpha)
    assert same_bits(clip, once)
    assert [id(parameter) for parameter in clip.parameters()] == parameters
    assert all(parameter.requires_grad for parameter in clip.parameters())


def test_the_context_gives_back_what_was_there(clip):
    before = bits(clip)
    delta, *_ = adapted(clip)
    with delta.applied(clip, 1.0) as model:
        assert model is clip and not same_bits(clip, before)
    assert same_bits(clip, before)
    with pytest.raises(RuntimeError, match="in the block"), delta.applied(clip, 1.0):
        raise RuntimeError("in the block")
    assert same_bits(clip, before)

    delta.apply(clip, 0.25)
    outer = bits(clip)
    with delta.applied(clip, 1.0):
        pass
    assert same_bits(clip, outer)
    with pytest.raises(ValueError), delta.applied(clip, 7):
        pass
    assert same_bits(clip, outer)


def test_a_second_delta_starts_from_the_originals(clip):
    before = bits(clip)
    first, *_ = adapted(clip)
    second = Delta("adapter", {name: 2 * tensor for name, tensor in first.tensors.items()}, first.meta)
    first.apply(clip, 0.5)
    at_half = bits(clip)
    second.apply(clip, 0.5)
    doubled = bits(clip)
    first.restore(clip)  # any delta restores
    assert same_bits(clip, before)
    first.apply(clip, 1.0)
    for name, tensor in clip.state_dict().items():
        torch.testing.assert_close(tensor, doubled[name], rtol=1e-5, atol=1e-6)
    first.apply(clip, 0.5)
    assert same_bits(clip, at_half)
    with second.applied(clip, 1.0):
        pass
    assert same_bits(clip, at_half)


def test_several_models_hold_one_delta_and_are_not_kept_alive(clip):
    delta, *_ = adapted(clip)
    other = copy.deepcopy(clip)
    before = bits(other)
    delta.apply(clip, 1.0)
    delta.apply(other, 0.5)
    delta.restore(clip)
    assert same_bits(clip, before) and not same_bits(other, before)
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None


def test_adapters_still_attached_would_be_counted_twice(clip):
    adapters = AdapterSet(clip)
    delta = adapters.delta()
    with pytest.raises(ValueError, match=r"adapters are still attached .* call remove\(\)"):
        delta.apply(clip, 1.0)
    adapters.remove()
    delta.apply(clip, 1.0)


@pytest.mark.parametrize("alpha", [0.5, {"text": 0.5, "image": 0}])
def test_nothing_is_learned_on_a_model_with_a_delta_in_it(clip, alpha):
    delta, *_ = adapted(clip)
    delta.apply(clip, alpha)
    for learn in (require_untouched, AdapterSet):
        with pytest.raises(ValueError, match=r"a delta is applied .* at alpha .*0.5.*: call restore\(model\)"):
            learn(clip)
    for same_as_loaded in (0.0, {"image": 0.0}, {}):
        delta.apply(clip, same_as_loaded)
        require_untouched(clip)
    delta.apply(clip, alpha)
    delta.restore(clip)
    AdapterSet(clip).remove()


# --- α by encoder and by layer ---


def changed(model, before):
    names = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    return {name.split(".attn")[0].split(".mlp")[0] for name in names}


def test_alpha_by_tower_and_layer(clip):
    before = bits(clip)
    delta, *_ = adapted(clip)
    blocks = {f"image.{i}": f"visual.transformer.resblocks.{i}" for i in range(3)}
    blocks |= {f"text.{i}": f"transformer.resblocks.{i}" for i in range(2)}
    delta.apply(clip, {"image": 1.0})
    assert changed(clip, before) == {blocks[f"image.{i}"] for i in range(3)}
    delta.apply(clip, {"text.1": 0.5})
    assert changed(clip, before) == {blocks["text.1"]}
    delta.apply(clip, {"image": 1.0, "image.1": 0, "text": 1})
    assert changed(clip, before) == set(blocks.values()) - {blocks["image.1"]}
    delta.apply(clip, {})
    assert same_bits(clip, before)


def test_a_layers_key_wins_over_its_towers(clip):
    delta, *_ = adapted(clip)
    delta.apply(clip, 0.2)
    fifth = bits(clip)
    delta.apply(clip, 0.9)
    most = bits(clip)
    delta.apply(clip, {"image.2": np.float32(0.2), "image": 0.9, "text": 0.9})
    for name, tensor in clip.state_dict().items():
        wanted = fifth if name.startswith("visual.transformer.resblocks.2.") else most
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "alpha", [-0.01, 1.01, math.nan, math.inf, "0.5", None, True, [0.5], {"image": 2}, {"text": "a"}, 1 + 2j]
)
def test_alpha_out_of_range_is_refused(clip, alpha):
    before = bits(clip)
    delta, *_ = adapted(clip)
    with pytest.raises(ValueError, match=r"alpha.* must be a number in \[0, 1\], from zero-shot to tuned, not"):
        delta.apply(clip, alpha)
    assert same_bits(clip, before)


@pytest.mark.parametrize("key", ["audio", "image.3", "image.0.attn", 3])
def test_unknown_keys_of_alpha_are_refused_with_those_there_are(clip, key):
    delta, *_ = adapted(clip)
    with pytest.raises(ValueError, match="unknown key .*: it can be image, text, image.0, image.1, image.2, text.0"):
        delta.apply(clip, {"image": 0.5, key: 0.5})


# --- differences and low-rank updates ---


def test_a_difference_leads_from_one_model_to_the_other(clip, inputs):
    before = copy.deepcopy(clip.state_dict())
    other = make_clip(seed=1)
    tuned = bits(other)
    delta = Delta.from_difference(before, other, method="full")
    assert "logit_scale" not in delta.tensors  # unchanged
    delta.apply(clip, 1.0)
    assert relative(features(clip, inputs), features(other, inputs)) < 1e-5
    delta.apply(clip, 0.5)
    for name, tensor in clip.state_dict().items():
        torch.testing.assert_close(tensor, (before[name] + tuned[name]) / 2, rtol=1e-5, atol=1e-6)
    delta.apply(clip, {"text": 1.0})
    torch.testing.assert_close(clip.token_embedding.weight, other.token_embedding.weight)
    assert torch.equal(clip.visual.conv1.weight, before["visual.conv1.weight"])
    delta.restore(clip)
    assert same_bits(clip, before)


def test_a_difference_keeps_running_statistics_and_what_belongs_to_no_tower(clip):
    clip.visual.conv1 = nn.Sequential(clip.visual.conv1, nn.BatchNorm2d(64))
    before = copy.deepcopy(clip.state_dict())
    with torch.no_grad():
        clip.logit_scale.add_(1)
    clip.train().encode_image(make_inputs(clip)[0])
    delta = Delta.from_difference(before, clip.eval())
    assert set(delta.tensors) == {
        "logit_scale", "visual.conv1.1.running_mean", "visual.conv1.1.running_var"
    }  # fmt: skip
    clip.load_state_dict(before)
    delta.apply(clip, {"other": 1.0})
    assert clip.logit_scale.item() == pytest.approx(before["logit_scale"].item() + 1)


def test_a_difference_to_itself_or_to_another_architecture_is_refused(clip):
    with pytest.raises(ValueError, match="before is the tuned model's own memory: take a copy.deepcopy"):
        Delta.from_difference(clip.state_dict(), clip)
    with pytest.raises(ValueError, match="not of one model"):
        Delta.from_difference(make_clip(text=dict(layers=1)).state_dict(), clip)
    with pytest.raises(ValueError, match="differ in the shape of"):
        Delta.from_difference(make_clip(text=dict(vocab_size=40)).state_dict(), clip)
    assert not Delta.from_difference(copy.deepcopy(clip.state_dict()), clip).tensors


def test_a_low_rank_update_adds_its_product(clip):
    before = bits(clip)
    name = "visual.transformer.resblocks.1.mlp.c_fc.weight"  # (256, 64)
    b, a = torch.randn(256, 2), torch.randn(2, 64)
    delta = Delta.from_low_rank(before, {name: (b, a)}, method="lora")
    delta.apply(clip, 0.5)
    torch.testing.assert_close(clip.state_dict()[name], before[name] + 0.5 * b @ a)
    assert changed(clip, before) == {"visual.transformer.resblocks.1"}
    with pytest.raises(ValueError, match=r"c_fc.weight.B of shape \(2, 64\) does not fit"):
        Delta.from_low_rank(before, {name: (a, b)})


# --- the wrong model ---


def test_another_model_is_refused(clip):
    delta, *_ = adapted(clip)
    other = make_clip(seed=1)
    before = bits(other)
    with pytest.raises(ValueError, match="weights are not the ones the delta was made on: .* loaded afresh"):
        delta.apply(other, 0.5)
    assert same_bits(other, before)
    with pytest.raises(ValueError, match=r"resblocks.2.* which the model lacks"):
        delta.apply(make_clip(vision=dict(image_size=32, patch_size=16, width=64, layers=2, head_width=32)), 0.5)
    with pytest.raises(ValueError, match=r"of shape \(64, 64\) does not fit .* of shape \(32, 32\)"):
        delta.apply(make_clip(vision=dict(image_size=32, patch_size=16, width=32, layers=3, head_width=32)), 0.5)


def test_a_model_trained_since_is_refused_and_another_type_is_not(clip):
    delta, *_ = adapted(clip)
    delta.apply(copy.deepcopy(clip).double(), 1.0)  # the same numbers
    with torch.no_grad():
        clip.visual.transformer.resblocks[0].mlp.c_proj.weight[0, 0] += 1e-3
    with pytest.raises(ValueError, match="without training or merging"):
        delta.apply(clip, 1.0)


# --- files ---


@pytest.fixture
def saved(clip, tmp_path):
    delta, *_ = adapted(clip, rank=4)
    delta.save(tmp_path / "tuned")
    return delta, tmp_path / "tuned"


def test_saved_and_loaded_deltas_are_the_same(clip, saved, tmp_path):
    delta, path = saved
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tuned.json", "tuned.safetensors"]
    for spelling in (path, str(path), path.with_suffix(".json"), path.with_suffix(".safetensors")):
        again = Delta.load(spelling)
        assert again.kind == delta.kind and again.meta == delta.meta
        assert again.tensors.keys() == delta.tensors.keys()
        assert all(torch.equal(again.tensors[name], tensor) for name, tensor in delta.tensors.items())
    delta.apply(clip, 0.6)
    before = bits(clip)
    again.apply(clip, 0.6)
    assert same_bits(clip, before)
    delta.save(tmp_path / "alpha0.5")  # a dot is no suffix
    assert (tmp_path / "alpha0.5.safetensors").is_file()


def test_the_json_is_readable_and_complete(clip, tmp_path):
    backbone = load_clip_like(clip)
    adapters = AdapterSet(clip, AdapterConfig(rank=4))
    adapters.delta(backbone=backbone, settings={"shots": 16, "lr": 5e-4}).save(tmp_path / "tuned")
    about = json.loads((tmp_path / "tuned.json").read_text())
    assert about["kind"] == "adapter" and about["method"] == "R-Adapter"
    assert (about["backbone"], about["pretrained"]) == ("tiny", "random")
    assert about["settings"] == {
        "rank": 4, "drop_prob": 0.2, "momentum": 0.999, "towers": ["image", "text"],
        "drop": "adapter", "whitening": None, "averaged": True, "shots": 16, "lr": 5e-4,
    }  # fmt: skip
    assert about["versions"]["torch"] == torch.__version__
    assert about["tensors"]["transformer.resblocks.0.mlp.c_proj"] == [48, 48]
    assert len(about["fingerprint"]) == 64
    adapters.remove()
    with pytest.raises(ValueError, match=r"it is for load_clip\('tiny', pretrained='random'\)"):
        Delta.load(tmp_path / "tuned").apply(make_clip(seed=1), 1.0)


def load_clip_like(model):
    from radapter_lite.backbone import Backbone

    return Backbone(model, lambda texts: torch.zeros(len(texts), 8), lambda image: image, "tiny", "random")


def test_damaged_files_are_refused_with_a_sentence(saved):
    _, path = saved
    tensors, about = path.with_suffix(".safetensors"), path.with_suffix(".json")
    whole, text = tensors.read_bytes(), about.read_text()

    tensors.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="tuned.safetensors is truncated, damaged or of another delta"):
        Delta.load(path)
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    tensors.write_bytes(flipped)
    with pytest.raises(ValueError, match="truncated, damaged or of another delta"):
        Delta.load(path)
    tensors.write_bytes(whole)

    about.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="tuned.json does not describe a delta"):
        Delta.load(path)
    about.write_text(text.replace('"fingerprint"', '"footprint"'))
    with pytest.raises(ValueError, match="does not describe a delta"):
        Delta.load(path)
    about.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match="has format 2 where 1 was expected: update radapter_lite"):
        Delta.load(path)
    about.write_text(text.replace('"kind": "adapter"', '"kind": "magic"'))
    with pytest.raises(ValueError, match="a delta of kind 'magic' where adapter, difference, low_rank are known"):
        Delta.load(path)
    wrong = json.loads(text)
    wrong["tensors"]["transformer.resblocks.0.mlp.c_proj"] = [64, 64]
    about.write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match="the shapes in .*tuned.json are not those in tuned.safetensors"):
        Delta.load(path)

    about.unlink()
    with pytest.raises(FileNotFoundError, match="tuned.json is missing: a delta is two files"):
        Delta.load(path)
    with pytest.raises(FileNotFoundError, match="nothing.safetensors is missing"):
        Delta.load(path.with_name("nothing"))


def test_a_tensor_of_the_wrong_shape_is_refused(clip, tmp_path):
    delta, *_ = adapted(clip)
    name = next(iter(delta.tensors))
    Delta("adapter", delta.tensors | {name: torch.zeros(64, 32)}, delta.meta).save(tmp_path / "tuned")
    with pytest.raises(ValueError, match=r"attn.out_proj of shape \(64, 32\) does not fit .* of shape \(64, 64\)"):
        Delta.load(tmp_path / "tuned").apply(clip, 1.0)


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    delta, path = saved
    whole = path.with_suffix(".safetensors").read_bytes()

    def fail(*arguments, **settings):
        raise OSError("no space left")

    monkeypatch.setattr("radapter_lite.delta_file.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        delta.save(path)
    assert path.with_suffix(".safetensors").read_bytes() == whole
    assert len(list(path.parent.iterdir())) == 2
    with pytest.raises(FileNotFoundError, match="folder .*nowhere does not exist"):
        delta.save(path.parent / "nowhere" / "tuned")


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_files_may_be_read_by_whom_any_new_file_may(clip, tmp_path, umask):
    delta, *_ = adapted(clip, rank=4)
    before = os.umask(umask)
    try:
        (tmp_path / "plain").open("w").close()
        delta.save(tmp_path / "tuned")
        delta.export(clip, tmp_path / "exported.safetensors")
    finally:
        os.umask(before)
    modes = {file.name: oct(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 4 and set(modes.values()) == {modes["plain"]}, modes


def test_settings_that_are_no_json_are_refused(clip):
    adapters = AdapterSet(clip)
    with pytest.raises(ValueError, match="settings must be JSON"):
        adapters.delta(settings={"optimizer": object()})


# --- export ---


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-SigLIP"])
def test_open_clip_alone_loads_an_export(name, tmp_path):
    model = load_clip(name, pretrained="random").model
    before = bits(model)
    adapters = AdapterSet(model, AdapterConfig(rank=4))
    fill(adapters)
    delta = adapters.delta()
    adapters.remove()
    inputs = make_inputs(model, batch=1)
    delta.export(model, tmp_path / "tuned.safetensors", alpha=0.5)
    assert same_bits(model, before)
    delta.apply(model, 0.5)
    expected = features(model, inputs)
    del model, before
    again = open_clip.create_model(name, pretrained=str(tmp_path / "tuned.safetensors")).eval()
    assert torch.equal(features(again, inputs), expected)


def test_an_export_must_end_in_safetensors(clip, tmp_path):
    delta, *_ = adapted(clip)
    with pytest.raises(ValueError, match="must end in .safetensors"):
        delta.export(clip, tmp_path / "tuned.pt")
