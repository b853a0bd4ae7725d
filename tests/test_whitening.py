"""Whitened adapters: the same functions as plain ones, in coordinates where their inputs are equally loud."""

from dataclasses import replace

import pytest
import torch
from conftest import features, make_backbone, make_folder, make_inputs, step

from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.data import load_images
from radapter_lite.methods.r_adapter import RAdapterConfig, attach, r_adapter
from radapter_lite.methods.whitening import inverse_root
from radapter_lite.tasks import as_task
from radapter_lite.training import TrainingConfig

CONFIG = RAdapterConfig(
    TrainingConfig(epochs=3, batch_size=8, lr=3e-3), adapter=AdapterConfig(drop_prob=0.1, momentum=0.5, whitening=0.01)
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load_images(make_folder(tmp_path_factory.mktemp("whitening"))).few_shot(5)


def test_the_inverse_root_makes_every_direction_equally_loud():
    torch.manual_seed(0)
    x = torch.randn(5000, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    moment = x.T @ x / len(x)
    whitened = x @ inverse_root(moment, 1e-9)
    loudness = moment.trace() / 6
    round_ = loudness * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(whitened.T @ whitened / len(x), round_, atol=1e-5, rtol=0)
    damped = inverse_root(moment, 1e6)  # with much damping it is the plain adapter, in smaller steps
    torch.testing.assert_close(damped, 1e-3 * torch.eye(6, dtype=torch.float64), atol=1e-6, rtol=0)
    assert torch.equal(inverse_root(torch.zeros(3, 3), 0.1), torch.eye(3))


@pytest.mark.parametrize("rank", [None, 4])
def test_it_begins_as_zero_shot_and_merges_as_any_adapter(images, rank):
    clip = make_backbone()
    inputs = make_inputs(clip.model)
    before = features(clip.model, inputs)
    adapters = attach(clip, as_task(images), replace(CONFIG, adapter=replace(CONFIG.adapter, rank=rank)))
    assert all(adapters[site].basis is not None for site in adapters.sites)
    torch.testing.assert_close(features(clip.model, inputs), before)
    optimizer = torch.optim.AdamW(adapters.parameters(), lr=1e-2)
    for _ in range(3):
        step(clip.model, adapters, inputs, optimizer)
    adapters.eval()
    unmerged = features(clip.model, inputs)
    assert (unmerged - before).abs().max() > 1e-3
    adapters.remove()
    with adapters.delta(backbone=clip).applied(clip.model, 1.0):
        torch.testing.assert_close(features(clip.model, inputs), unmerged, rtol=1e-4, atol=1e-5)


def test_the_bases_come_from_what_reaches_the_adapters(images):
    clip = make_backbone()
    adapters = attach(clip, as_task(images), CONFIG)
    site = next(site for site in adapters.sites if site.name == "image.1.mlp")
    seen = []
    handle = adapters[site].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].flatten(0, 1)))
    with torch.no_grad():
        adapters.eval()
        clip.model.encode_image(images.tensor(clip.preprocess))
    handle.remove()
    adapters.remove()
    expected = inverse_root(seen[0].T @ seen[0] / len(seen[0]), 0.01)
    torch.testing.assert_close(adapters[site].basis, expected, rtol=1e-3, atol=1e-4)


def test_training_is_reproducible_and_resumable(images, tmp_path, monkeypatch):
    whole = r_adapter(make_backbone(), images, CONFIG).delta.tensors
    clip = make_backbone()

    path = tmp_path / "run.pt"
    calls = []
    accumulate = AdapterSet.accumulate

    def stop_in_the_second_epoch(self):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("stopped")
        accumulate(self)

    monkeypatch.setattr(AdapterSet, "accumulate", stop_in_the_second_epoch)
    with pytest.raises(RuntimeError, match="stopped"):
        r_adapter(clip, images, CONFIG, checkpoint=path)
    monkeypatch.undo()
    again = r_adapter(clip, images, CONFIG, checkpoint=path).delta.tensors
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_an_error_leaves_the_backbone_without_adapters(images, monkeypatch):
    clip = make_backbone()
    monkeypatch.setattr("radapter_lite.methods.whitening.inverse_root", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attach(clip, as_task(images), CONFIG)
    AdapterSet(clip.model).remove()  # which a model that carries adapters would refuse


def test_a_damping_must_be_positive():
    with pytest.raises(ValueError, match="whitening must be a number above 0, not 0"):
        AdapterConfig(whitening=0)
