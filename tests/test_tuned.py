"""One kind of result: every method's answers, saved and loaded; and a method of the user's own among them."""

from dataclasses import asdict, dataclass, field, replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from conftest import make_backbone, make_folder

from radapter_lite import METHODS, Delta, load_images, load_tuned, recommended, register, sweep, tune
from radapter_lite.backbone.sites import restored
from radapter_lite.encoding import image_features, predict, text_head
from radapter_lite.methods.heads import no_steps
from radapter_lite.methods.objectives import contrastive_loss
from radapter_lite.methods.r_adapter import RAdapterConfig, check_momentum, r_adapter
from radapter_lite.methods.registry import LossConfig
from radapter_lite.settings import by_name
from radapter_lite.training import TrainingConfig
from radapter_lite.tuned import Tuned
from radapter_lite.view import plots


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("tuned") / "shapes", ("photo", "sketch"), 10)
    return load_images(folder, id_domain="photo")


def short(name):
    """A few settings that make a method quick; all else is as recommended."""
    names = by_name(METHODS[name].config)
    settings = {"epochs": 1, "momentum": 0.5, "init_text": None, "context_length": 2}
    return {key: value for key, value in settings.items() if key in names and METHODS[name].trains}


@pytest.mark.parametrize("name", METHODS)
def test_what_was_learned_is_saved_and_answers_the_same(images, name, tmp_path):
    backbone = make_backbone()
    tuned = tune(backbone, images.few_shot(4), name, **short(name)).with_meta(data={"shots": 4})
    answers = tuned.similarities(backbone, images.test)
    tuned.save(tmp_path / "tuned")
    loaded = load_tuned(tmp_path / "tuned")
    assert torch.equal(loaded.similarities(make_backbone(), images.test), answers)
    assert (loaded.method, loaded.config, loaded.has_alpha) == (name, tuned.config, METHODS[name].has_alpha)
    assert loaded.trained_parameters == tuned.trained_parameters
    assert loaded.meta["data"] == {"shots": 4} and loaded.meta["backbone"] == "tiny"
    assert {file.name for file in tmp_path.iterdir()} == {"tuned.safetensors", "tuned.json"}

    table = sweep(backbone, loaded, images.test)
    assert set(table["alpha"]) == (set(n / 10 for n in range(11)) if loaded.has_alpha else {0.0, 1.0})
    start = sweep(backbone, loaded, images.test, [0.0])["accuracy"]
    right = (predict(backbone, images.test).argmax(1) == images.test.labels).numpy()
    assert start.iloc[0] == pytest.approx(100 * right[images.test.table["domain"] == "photo"].mean())

    with pytest.raises(ValueError, match="weights are not the ones"):
        loaded.similarities(make_backbone(seed=3), images.test)
    if not loaded.has_alpha:
        with pytest.raises(ValueError, match=f"{name} has no α: it is one point, .* not 0.5"):
            loaded.similarities(backbone, images.test, 0.5)
        with pytest.raises(ValueError, match=f"{name} learns no change of CLIP's own weights"):
            _ = loaded.delta
        with pytest.raises(ValueError, match="what a method without a delta learned is read by load_tuned"):
            Delta.load(tmp_path / "tuned")


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_file_and_function_have_its_name(name):
    identifier = name.partition(",")[0].lower().replace("-", "_").replace(" ", "_")
    function = METHODS[name].function
    family = {"houlsby_adapter": "bottleneck"} | dict.fromkeys(("flyp", "fine_tuning", "lora"), "weights")
    family |= dict.fromkeys(("linear_probe", "lp_ft", "clip_adapter", "tip_adapter"), "heads")
    family |= dict.fromkeys(("coop", "prefix_tuning"), "prompts")
    assert function.__module__ == f"radapter_lite.methods.{family.get(function.__name__, function.__name__)}"
    # One function under two names.
    shares = {"linear_adapter": "r_adapter", "tip_adapter_f": "tip_adapter"}
    shares |= {"adaptformer": "houlsby_adapter", "p_tuning": "coop"}
    assert function.__name__ == shares.get(identifier, identifier)


@pytest.mark.parametrize("name", METHODS)
def test_the_recommended_settings_suit_any_backbone(name, images):
    config = recommended(name, make_backbone())
    assert type(config) is type(METHODS[name].config)
    with pytest.raises(TypeError, match=f"the settings of {name} are a .*, not a TrainingConfig"):
        METHODS[name].tune(make_backbone(), images.few_shot(2), TrainingConfig())


def test_settings_are_given_by_name(images):
    backbone, few = make_backbone(), images.few_shot(2)
    tuned = tune(backbone, few, "LoRA", rank=2, epochs=1, seed=5)
    assert (tuned.config.rank, tuned.config.training.epochs, tuned.config.training.seed) == (2, 1, 5)
    with pytest.raises(ValueError, match="LoRAConfig has no setting 'ranks'; it has epochs, .*rank"):
        tune(backbone, few, "LoRA", ranks=2)
    with pytest.raises(ValueError, match="SGD is no method of this kit; there are R-Adapter, "):
        tune(backbone, few, "SGD")


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), True, "warm"])
def test_a_temperature_that_makes_no_sense_is_refused_before_training(temperature):
    kinds = {type(m.config) for m in METHODS.values() if hasattr(m.config, "temperature")} | {LossConfig}
    assert len(kinds) >= 9
    for kind in kinds:
        with pytest.raises(ValueError, match="temperature must be a number above 0, not"):
            kind(temperature=temperature)


def test_a_memory_too_long_for_the_run_is_said_so_with_one_that_is_not(images):
    with pytest.raises(ValueError, match="momentum 0.999 leaves 9.% of its zero start .* lower momentum to") as told:
        r_adapter(make_backbone(), images.few_shot(4), RAdapterConfig())
    words = str(told.value).split()
    momentum, steps = float(words[words.index("to") + 1]), int(words[-4])
    loop = replace(TrainingConfig(), batch_size=128)
    config = RAdapterConfig(training=loop)
    good = replace(config, adapter=replace(config.adapter, momentum=momentum))
    r_adapter(make_backbone(), images.few_shot(4), good)
    check_momentum(0.999, steps)
    with pytest.raises(ValueError, match=f"train for {steps} steps or more"):
        check_momentum(0.999, steps - 1)


# --- a method of one's own ---


@dataclass(frozen=True)
class OwnConfig:
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(epochs=2, batch_size=8, lr=1e-3))
    weight: float = 1.0


@pytest.fixture
def own():
    """Two methods of a user: the last norm of the image encoder tuned, and class means beside the zero-shot head."""
    registered = set(METHODS)

    @register("my norm", OwnConfig(), searched="lr", grid=(1e-3, 2e-3, 4e-3))
    def my_norm(backbone, task, config, train):
        parameters = list(backbone.model.visual.ln_post.parameters())
        with restored(backbone.model) as before:
            history = train(contrastive_loss(backbone, task, 0.05), parameters, norm=backbone.model.visual)
            delta = Delta.from_difference(before, backbone.model, backbone=backbone)
        return Tuned(delta, history, sum(p.numel() for p in parameters))

    def answer(backbone, task, tuned):
        head = text_head(backbone, task.names) + tuned.config.weight * tuned.tensors["means"]
        return image_features(backbone, task.images) @ head.T

    @register("my means", OwnConfig(), answer=answer)
    def my_means(backbone, task, config, train):
        features, labels = image_features(backbone, task.images), task.images.labels
        means = torch.stack([features[labels == label].mean(0) for label in range(len(task.names))])
        return Tuned({"means": means}, no_steps(), means.numel())

    yield my_norm, my_means
    for name in set(METHODS) - registered:
        METHODS.pop(name)


def test_a_method_of_ones_own_is_one_of_the_kits(own, images, tmp_path):
    backbone, few = make_backbone(), images.few_shot(4)
    for name, function in zip(("my norm", "my means"), own, strict=True):
        config = recommended(name, replace(backbone, search="search"))
        assert config.weight == 1.0
        tuned = tune(backbone, few, name, weight=0.5)
        assert function(backbone, few).method == name
        tuned.save(tmp_path / name)
        loaded = load_tuned(tmp_path / name)
        assert asdict(loaded.config)["weight"] == 0.5
        assert torch.equal(loaded.similarities(backbone, images.test), tuned.similarities(backbone, images.test))
        assert set(sweep(backbone, loaded, images.test)["alpha"]) >= {0.0, 1.0}
    looks = {(look["color"], look["marker"]) for look in map(plots.look, METHODS)}
    assert len(looks) == len(METHODS)  # a colour and a marker that no other method has
    _, axis = plt.subplots()
    curve = pd.DataFrame({"method": "my norm", "seed": 0, "alpha": [0.0, 1.0], "id": [1.0, 2.0], "ood": [1.0, 2.0]})
    plots.plot_trade_off(axis, curve)
    plt.close("all")


def test_a_name_that_is_taken_is_refused(own):
    with pytest.raises(ValueError, match="FLYP is a method of the kit already: register yours under another"):
        register("FLYP", OwnConfig())(lambda backbone, task, config, train: None)


def test_a_file_of_an_unknown_method_says_what_to_do(own, images, tmp_path):
    tune(make_backbone(), images.few_shot(4), "my means").save(tmp_path / "tuned")
    METHODS.pop("my means")
    with pytest.raises(ValueError, match="made by 'my means', which is no method here: register it before"):
        load_tuned(tmp_path / "tuned")
