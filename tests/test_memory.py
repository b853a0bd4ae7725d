"""What training takes is counted from shapes, and is what a real step holds."""

import copy

import open_clip
import pytest
import torch
from conftest import make_clip, make_inputs

from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.losses import info_nce
from radapter_lite.memory import SHARDINGS, estimate


def nbytes(tensors):
    return sum(each.nbytes for each in tensors)


@pytest.mark.parametrize("adapter", [None, AdapterConfig(), AdapterConfig(rank=4), AdapterConfig(whitening=0.1)])
def test_the_estimate_is_what_a_step_holds(adapter):
    model, batch = make_clip(), 6
    before = copy.deepcopy(model.state_dict())
    expected = estimate(model, adapter, batch=batch)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    adapters = AdapterSet(model, adapter) if adapter else None
    if adapter and adapter.whitening:
        for each in adapters.adapters.values():
            each.basis = torch.eye(len(each.average))
    trained = list(adapters.parameters()) if adapters else [each for each in model.parameters() if each.ndim]
    optimizer = torch.optim.AdamW(trained)
    held, modules = {}, [model, adapters] if adapters else [model]

    def hold(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    pixels, tokens = make_inputs(model, batch)
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        features = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
    weights = [each for module in modules for each in [*module.parameters(), *module.buffers()]]
    own = {each.untyped_storage().data_ptr() for each in weights}
    found = sum(storage.nbytes() for place, storage in held.items() if place not in own)
    info_nce(*features, 10.0).backward()
    optimizer.step()
    moments = [each for state in optimizer.state.values() for name, each in state.items() if name != "step"]
    assert expected["weights"] == nbytes(weights)
    assert expected["gradients"] == nbytes(each.grad for each in trained)
    assert expected["optimizer"] == nbytes(moments)
    assert 0.7 * expected["activations"] < found <= 1.02 * expected["activations"]
    assert expected["total"] == sum(expected[name] for name in ("weights", "gradients", "optimizer", "activations"))


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-bigG-14"])
def test_large_models_are_counted_without_their_memory(name):
    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta")
    full, own = (
        [estimate(model, each, 8, sharding)["total"] for sharding in SHARDINGS] for each in (None, AdapterConfig())
    )
    count = sum(each.numel() for each in model.parameters())
    assert full[:4] == pytest.approx([count * each for each in (16, 8 + 1, 4 + 1.5, 2)], rel=1e-3)
    assert own[:4] == sorted(own[:4], reverse=True) and own[0] < full[0] / 2 and own[3] < own[4] < own[2]
