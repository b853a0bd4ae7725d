"""Methods that end in a delta: what comes back, and what stays as it was."""

import copy
import sys
from dataclasses import replace

import pytest
import torch
from conftest import features, fill, make_backbone, make_folder, make_inputs

from radapter_lite import training
from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.data import load_images
from radapter_lite.delta import Delta
from radapter_lite.encoding import predict
from radapter_lite.methods import objectives, registry
from radapter_lite.methods.r_adapter import RAdapterConfig, r_adapter
from radapter_lite.methods.registry import LossConfig
from radapter_lite.methods.weights import LoRAConfig, fine_tuning, flyp, lora
from radapter_lite.settings import with_settings
from radapter_lite.training import TrainingConfig

TRAINING = TrainingConfig(epochs=8, batch_size=8, lr=3e-3, crop=0.9)  # 2 steps an epoch
R_ADAPTER = RAdapterConfig(TRAINING, 0.05, AdapterConfig(momentum=0.8), margin=0.1, smoothing=0.05)
LOW_RANK = replace(R_ADAPTER, adapter=AdapterConfig(rank=4, momentum=0.8, drop_prob=0.1, towers=("image",)))

METHODS = {
    "r_adapter": (r_adapter, R_ADAPTER),
    "low rank": (r_adapter, LOW_RANK),
    "fine_tuning": (fine_tuning, LossConfig(replace(TRAINING, lr=1e-3), temperature=0.05)),
    "flyp": (flyp, LossConfig(replace(TRAINING, lr=1e-3), temperature=0.05)),
    "lora": (lora, LoRAConfig(replace(TRAINING, lr=1e-2), rank=2, scale=2.0, temperature=0.05)),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load_images(make_folder(tmp_path_factory.mktemp("methods"))).few_shot(5)  # 3 x 5


@pytest.fixture(params=list(METHODS))
def method(request):
    return METHODS[request.param]


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def module_of(tune):
    return sys.modules[tune.__module__]


def short(config):
    """The same settings for one epoch, with an average that forgets its start in two steps."""
    forgetful = {"momentum": 0.5} if hasattr(config, "adapter") else {}
    return with_settings(config, {"epochs": 1} | forgetful)


def numbers(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_delta_at_one_is_what_was_tuned_and_the_backbone_is_as_before(images, method, monkeypatch, tmp_path):
    tune, config = method
    backbone = make_backbone()
    inputs = make_inputs(backbone.model)
    before, zero_shot = copy.deepcopy(backbone.model.state_dict()), features(backbone.model, inputs)
    train = registry.train
    tuned_features = []

    def watched(batches, loss, *args, state, **options):
        history = train(batches, loss, *args, state=state, **options)
        for module in state.values():
            module.eval()
        trained = copied[-1] if tune is lora else backbone.model  # peft works on a copy
        tuned_features.append(features(trained, inputs))
        return history

    copied = []
    lora_model = module_of(lora).lora_model
    monkeypatch.setattr(module_of(lora), "lora_model", lambda *a: copied.append(lora_model(*a)) or copied[-1])
    monkeypatch.setattr(registry, "train", watched)
    tuned = tune(backbone, images, config)

    assert same(backbone.model.state_dict(), before)
    assert torch.equal(features(backbone.model, inputs), zero_shot)
    assert all(p.requires_grad and p.grad is None for p in backbone.model.parameters())
    assert not backbone.model.training
    with tuned.delta.applied(backbone.model, 1.0):
        torch.testing.assert_close(features(backbone.model, inputs), tuned_features[0], rtol=0, atol=1e-5)
        predictions = predict(backbone, images)
    assert (tuned_features[0] - zero_shot).abs().max() > 1e-3  # it is no trivial agreement

    assert len(tuned.history) == 2 * config.training.epochs
    assert tuned.history["loss"].tail(4).mean() < 0.9 * tuned.history["loss"].head(4).mean()

    tuned.delta.save(tmp_path / "tuned")
    loaded = Delta.load(tmp_path / "tuned")
    assert loaded.meta == tuned.delta.meta
    fresh = make_backbone()
    with loaded.applied(fresh.model, 1.0):
        assert torch.equal(predict(fresh, images), predictions)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("r_adapter", 3 * 2 * 64**2 + 2 * 2 * 48**2),
        ("low rank", 3 * 2 * 2 * 64 * 4),
        ("fine_tuning", numbers(make_backbone().model.visual)),
        ("flyp", numbers(make_backbone().model) - 1),  # without logit_scale
        # a layer: q, k and v with one A, out_proj, and the MLP's two, each r (in + out)
        ("lora", sum(n * 2 * (4 * d + 2 * d + 2 * 5 * d) for n, d in ((3, 64), (2, 48)))),
    ],
)
def test_trained_parameters_are_counted(images, name, count):
    tune, config = METHODS[name]
    tuned = tune(make_backbone(), images, short(config))
    assert tuned.trained_parameters == count
    if name != "r_adapter" and name != "low rank":
        assert "logit_scale" not in tuned.delta.tensors
        assert 0.8 * count < sum(tensor.numel() for tensor in tuned.delta.tensors.values()) <= count


def test_settings_reach_the_delta(images, method):
    tune, config = method
    meta = tune(make_backbone(), images, short(config)).delta.meta
    assert meta["backbone"] == "tiny" and meta["pretrained"] == "random"
    names = {"r_adapter": "R-Adapter", "fine_tuning": "fine-tuning", "flyp": "FLYP", "lora": "LoRA"}
    assert meta["method"] == names[tune.__name__] and meta["prompts"] == list(make_backbone().prompts)
    settings = meta["settings"]
    assert settings["training"]["lr"] == config.training.lr and settings["training"]["epochs"] == 1
    assert settings["temperature"] == 0.05
    if tune is r_adapter:
        assert settings["margin"] == 0.1 and settings["smoothing"] == 0.05
        assert settings["rank"] == config.adapter.rank and settings["averaged"] is True
        assert settings["towers"] == list(config.adapter.towers)
        assert settings["drop_prob"] == config.adapter.drop_prob


@pytest.mark.parametrize("name", ["r_adapter", "flyp", "lora"])
def test_settings_reach_the_contrastive_loss(images, name, monkeypatch):
    tune, config = METHODS[name]
    home = module_of(tune) if name == "r_adapter" else objectives  # where the loss is called
    criterion = home.mpm_nce
    used = []

    def watched(image, text, positives, **settings):
        used.append(settings)
        return criterion(image, text, positives, **settings)

    monkeypatch.setattr(home, "mpm_nce", watched)
    tune(make_backbone(), images, short(config))
    margin, smoothing = (0.1, 0.05) if name == "r_adapter" else (0.0, 0.0)
    assert used == [{"temperature": 0.05, "margin": margin, "smoothing": smoothing}] * 2


def test_an_interrupted_tuning_ends_in_the_same_bits(images, method, monkeypatch, tmp_path):
    tune, config = method
    backbone = make_backbone()
    before = copy.deepcopy(backbone.model.state_dict())
    torch.manual_seed(1)
    whole = tune(backbone, images, config).delta.tensors

    rate, calls = training.learning_rate, iter(range(100))

    def interrupted(*args):
        if next(calls) == 7:  # within the fourth epoch
            raise KeyboardInterrupt
        return rate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learning_rate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(backbone, images, config, checkpoint=tmp_path / "run.pt")
    assert same(backbone.model.state_dict(), before)  # also after an interruption
    assert all(p.requires_grad and p.grad is None for p in backbone.model.parameters())

    torch.manual_seed(2)  # the caller's random numbers have no part in it, nor are they moved on
    state = torch.get_rng_state()
    resumed = tune(make_backbone(), images, config, checkpoint=tmp_path / "run.pt")
    assert torch.equal(torch.get_rng_state(), state)
    assert same(resumed.delta.tensors, whole)
    assert len(resumed.history) == 16


def test_a_checkpoint_of_another_method_setting_is_refused(images, tmp_path):
    config = short(R_ADAPTER)
    r_adapter(make_backbone(), images, config, checkpoint=tmp_path / "run.pt")
    backbone = make_backbone()
    with pytest.raises(ValueError, match="is of a run with margin=0.1, this one has 0.0"):
        r_adapter(backbone, images, replace(config, margin=0.0), checkpoint=tmp_path / "run.pt")
    r_adapter(backbone, images, config)  # the refused run has left no adapters behind


def test_a_checkpoint_of_another_method_is_refused(images, tmp_path):
    loop = replace(TRAINING, epochs=1)
    flyp(make_backbone(), images, LossConfig(loop), checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="is of a run with method=FLYP, this one has fine-tuning"):
        fine_tuning(make_backbone(), images, LossConfig(loop), checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize("name", registry.METHODS)
def test_a_model_that_is_not_as_it_was_loaded_is_refused(images, name):
    method, backbone = registry.METHODS[name], make_backbone()
    before = copy.deepcopy(backbone.model.state_dict())
    adapters = AdapterSet(backbone.model)
    with pytest.raises(ValueError, match=r"already carries adapters: call remove\(\)"):
        method.tune(backbone, images, method.config)
    fill(adapters)
    delta = adapters.delta()
    adapters.remove()
    delta.apply(backbone.model, 0.5)
    with pytest.raises(ValueError, match=r"a delta is applied to this model at alpha 0.5: call restore\(model\)"):
        method.tune(backbone, images, method.config)
    delta.restore(backbone.model)
    assert same(backbone.model.state_dict(), before)
