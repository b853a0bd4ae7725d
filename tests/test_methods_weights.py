"""The neighbours that change or extend the weights, each against a reference written out here."""

import copy
import sys
from dataclasses import replace

import peft
import pytest
import torch
from conftest import MODELS, features, make_backbone, make_folder, make_inputs, tokenize_words
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import nn
from torch.nn import functional as F

from radapter_lite import training
from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.backbone import Backbone
from radapter_lite.data import load_images
from radapter_lite.delta import Delta
from radapter_lite.encoding import predict, text_head
from radapter_lite.losses import mpm_nce
from radapter_lite.methods import objectives, registry
from radapter_lite.methods.bottleneck import AdaptFormerConfig, HoulsbyConfig, adaptformer, houlsby_adapter
from radapter_lite.methods.objectives import pair_loss
from radapter_lite.methods.r_adapter import RAdapterConfig, r_adapter
from radapter_lite.methods.registry import LossConfig
from radapter_lite.methods.weights import LoRAConfig, _attend, fine_tuning, flyp, lora, lora_factors, lora_model
from radapter_lite.tasks import as_task
from radapter_lite.training import TrainingConfig, train

TRAINING = TrainingConfig(epochs=4, batch_size=8, lr=1e-2, crop=0.9)  # 2 steps an epoch
POINTS = {
    "Houlsby adapter": (houlsby_adapter, HoulsbyConfig(TRAINING, bottleneck=5, temperature=0.05)),
    "AdaptFormer": (
        adaptformer,
        AdaptFormerConfig(replace(TRAINING, lr=3e-2), bottleneck=5, scale=0.5, temperature=0.05),
    ),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load_images(make_folder(tmp_path_factory.mktemp("weights"))).few_shot(5)  # 3 x 5


@pytest.fixture(params=list(POINTS))
def point(request):
    return request.param, *POINTS[request.param]


def settings_of(model: nn.Module) -> list:
    """All that a method might leave changed in a model: weights, gradients, flags, modules, hooks."""
    parameters = [(name, p.data_ptr(), p.requires_grad, p.grad is None) for name, p in model.named_parameters()]
    modules = [(name, id(m), m.training, len(m._forward_hooks)) for name, m in model.named_modules()]
    return [parameters, modules]


def same(found: dict, expected: dict) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


# --- full fine-tuning and WiSE-FT ---


def test_fine_tuning_is_cross_entropy_under_the_zero_shot_head(images):
    """Against a loop written out here: no crops, the whole set in one batch."""
    config = TrainingConfig(epochs=3, batch_size=64, lr=1e-3, crop=1.0, flip=False, clip_norm=1e9)
    backbone, reference = make_backbone(), make_backbone()
    tuned = fine_tuning(backbone, images, LossConfig(config, temperature=0.05))

    pixels = images.tensor(reference.preprocess)
    head = text_head(reference, images.classes)
    optimizer = torch.optim.AdamW(reference.model.visual.parameters(), lr=1e-3, weight_decay=0)
    before = copy.deepcopy(reference.model.state_dict())
    for number in range(3):
        optimizer.param_groups[0]["lr"] = training.learning_rate(number, 3, config)
        features = F.normalize(reference.model.visual(pixels), dim=-1)
        loss = -torch.log_softmax(features @ head.T / 0.05, dim=1)[range(15), images.labels].mean()
        assert loss.item() == pytest.approx(tuned.history["loss"][number], rel=1e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = reference.model.state_dict()
    assert all(name.startswith("visual.") for name in tuned.delta.tensors)
    changes = [(change, after[name] - before[name]) for name, change in tuned.delta.tensors.items()]
    found, expected = (torch.cat([pair[i].flatten() for pair in changes]) for i in (0, 1))
    assert (found - expected).norm() < 0.03 * expected.norm()  # Adam makes signs of gradients that are rounding


@pytest.mark.parametrize("name", ["fine_tuning", "flyp"])
def test_wise_ft_goes_from_one_model_to_the_other(images, name, monkeypatch):
    tune, config = {"fine_tuning": (fine_tuning, LossConfig), "flyp": (flyp, LossConfig)}[name]
    backbone = make_backbone()
    zero_shot = copy.deepcopy(backbone.model.state_dict())
    stored = []

    def watched(*args, **options):
        history = train(*args, **options)
        stored.append(copy.deepcopy(backbone.model.state_dict()))
        return history

    monkeypatch.setattr(registry, "train", watched)
    delta = tune(backbone, images, config(replace(TRAINING, lr=1e-3))).delta
    for alpha in (0.0, 0.3, 1.0):
        expected = make_backbone()
        expected.model.load_state_dict(
            {key: (1 - alpha) * value + alpha * stored[0][key] for key, value in zero_shot.items()}
        )
        with delta.applied(backbone.model, alpha):
            found = predict(backbone, images)
        torch.testing.assert_close(found, predict(expected, images), rtol=0, atol=1e-6)
    assert same(backbone.model.state_dict(), zero_shot)
    text_moved = any(not key.startswith("visual.") for key in delta.tensors)
    assert text_moved == (name == "flyp")


# --- LoRA ---

LORA = LoRAConfig(TRAINING, rank=3, scale=2.0, temperature=0.05)


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every B with something in it, and A where it is."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)


def peft_attention() -> tuple[nn.Module, dict, dict]:
    """peft's layer around one attention, the weights W it began with, and ΔW written out."""
    torch.manual_seed(0)
    model = Attention()
    before = {name: value.clone() for name, value in model.attn.state_dict().items()}
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["attn"])
    layer = filled(peft.inject_adapter_in_model(config, model)).attn
    product = {
        name: 3 * part.lora_B["default"].weight.detach() @ part.lora_A["default"].weight.detach()
        for name, part in (("in_proj_weight", layer), ("out_proj.weight", layer.base_layer.out_proj))
    }
    return layer.eval(), before, product


def times_out_proj(output: torch.Tensor, x: torch.Tensor, before: dict, product: dict) -> list[int]:
    """Which multiples of out_proj's ΔW, from 0 to 2, give this output."""
    fits = []
    for times in range(3):
        attention = Attention().attn
        out_proj = before["out_proj.weight"] + times * product["out_proj.weight"]
        in_proj = before["in_proj_weight"] + product["in_proj_weight"]
        attention.load_state_dict(before | {"in_proj_weight": in_proj, "out_proj.weight": out_proj})
        if torch.allclose(attention(x, x, x)[0], output, atol=1e-5):
            fits.append(times)
    return fits


def test_pefts_attention_is_put_right():
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))
    layer, before, product = peft_attention()
    if peft.__version__ == "0.21.2":  # the reason for the work-around
        assert times_out_proj(layer(x, x, x)[0], x, before, product) == [2]
        layer.merge()
        merged = layer.base_layer.out_proj.base_layer.weight
        torch.testing.assert_close(merged, before["out_proj.weight"] + 2 * product["out_proj.weight"])
    layer, before, product = peft_attention()
    assert times_out_proj(_attend(layer, x, x, x)[0], x, before, product) == [1]
    assert torch.equal(layer.base_layer.in_proj_weight, before["in_proj_weight"])
    assert torch.equal(layer.base_layer.out_proj.base_layer.weight, before["out_proj.weight"])


@pytest.mark.parametrize("name", ["clip", "apart", "timm"])
def test_lora_is_the_model_with_w_plus_ba(name):
    model = MODELS[name]()
    inputs = make_inputs(model)
    zero_shot = features(model, inputs)
    torch.testing.assert_close(features(lora_model(model, LORA), inputs), zero_shot, rtol=0, atol=1e-6)

    tuned = filled(lora_model(model, LORA))
    by_hand = copy.deepcopy(model)
    factors = lora_factors(tuned)
    assert {name.replace("_weight", ".weight").split(".")[-2] for name in factors} == (
        {"qkv", "proj", "fc1", "fc2", "in_proj", "out_proj", "c_fc", "c_proj"}
        if name == "timm"
        else {"in_proj", "out_proj", "c_fc", "c_proj"}
    )
    raw = {key.replace(".default", "").replace(".base_layer", ""): p for key, p in tuned.named_parameters()}
    with torch.no_grad():
        for key in factors:
            place = key.removesuffix(".weight").removesuffix(".in_proj_weight")
            b, a = raw[f"{place}.lora_B.weight"], raw[f"{place}.lora_A.weight"]
            by_hand.get_parameter(key).add_(2.0 * b @ a)
    expected = features(by_hand, inputs)
    assert (expected - zero_shot).abs().max() > 1e-2
    torch.testing.assert_close(features(tuned, inputs), expected, rtol=0, atol=1e-5)
    with_gradients = tuned.encode_image(inputs[0], normalize=True).detach()  # not the attention's fast path
    torch.testing.assert_close(with_gradients, expected[:3], rtol=0, atol=1e-5)
    with Delta.from_low_rank(model.state_dict(), factors).applied(model, 1.0):
        torch.testing.assert_close(features(model, inputs), expected, rtol=0, atol=1e-5)


def test_loras_gradients_are_those_of_w_plus_ba(clip, inputs):
    tuned = filled(lora_model(clip, LORA))
    tuned.encode_image(inputs[0], normalize=True)[:, 0].sum().backward()
    found = {name: parameter.grad for name, parameter in tuned.named_parameters() if "visual" in name}

    leaves, weights = {}, {}
    for key, (b, a) in lora_factors(tuned).items():
        if key.startswith("visual."):
            leaves[key] = (b.detach().clone().requires_grad_(), a.detach().clone().requires_grad_())
            weights[key.removeprefix("visual.")] = clip.get_parameter(key) + leaves[key][0] @ leaves[key][1]
    output = torch.func.functional_call(clip.visual, weights, (inputs[0],))
    F.normalize(output, dim=-1)[:, 0].sum().backward()
    for key, (b, a) in leaves.items():
        layer = key.removesuffix(".weight").removesuffix(".in_proj_weight")
        layer = layer.replace("attn.out_proj", "attn.base_layer.out_proj")
        for part, expected in (("A", a.grad), ("B", 2.0 * b.grad)):  # b holds the scale of 2
            actual = found[f"{layer}.lora_{part}.default.weight"]
            torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6)


def test_the_delta_is_what_peft_merges(clip):
    tuned = filled(lora_model(clip, LORA))
    delta = Delta.from_low_rank(clip.state_dict(), lora_factors(tuned))
    for _, module in list(tuned.named_modules()):
        if isinstance(module, peft.tuners.lora.LoraLayer) and not module.merged:
            module.merge()
            if isinstance(module.base_layer, nn.MultiheadAttention) and peft.__version__ == "0.21.2":
                out_proj = module.base_layer.out_proj  # merged twice: once is taken out again
                weight = out_proj.base_layer.weight
                out_proj.base_layer.weight = weight - out_proj.get_delta_weight("default")
    merged = {name.replace(".base_layer", ""): value for name, value in tuned.state_dict().items()}
    with delta.applied(clip, 1.0):
        for name, value in clip.state_dict().items():
            torch.testing.assert_close(value, merged[name], rtol=0, atol=1e-6)


def test_lora_on_one_tower_leaves_the_other(clip, inputs):
    for tower in ("text", "image"):
        tuned = filled(lora_model(clip, replace(LORA, towers=(tower,))))
        assert all(name.startswith("visual.") == (tower == "image") for name in lora_factors(tuned))
        image, text = features(tuned, inputs).chunk(2)
        zero_shot_image, zero_shot_text = features(clip, inputs).chunk(2)
        assert torch.allclose(image, zero_shot_image, atol=1e-6) == (tower == "text")
        assert torch.allclose(text, zero_shot_text, atol=1e-6) == (tower == "image")


@pytest.mark.parametrize("name", ["custom blocks", "timm eva"])
def test_attentions_that_peft_cannot_reach_are_refused(name):
    with pytest.raises(ValueError, match="the image tower's attention .*Attention.* leave that tower out"):
        lora_model(MODELS[name](), LORA)
    lora_model(MODELS[name](), replace(LORA, towers=("text",)))


def test_loras_settings_are_checked():
    with pytest.raises(ValueError, match="rank must be a whole number of 1 or more, not 0"):
        LoRAConfig(rank=0)
    with pytest.raises(ValueError, match="scale must be a number above 0, not -1"):
        LoRAConfig(scale=-1)


# --- bottleneck adapters ---


def block_by_hand(block: nn.Module, x: torch.Tensor, adapt, mask: torch.Tensor | None) -> torch.Tensor:
    """One of the small CLIP's blocks from its weights alone; `adapt(kind, input, output)` [B, L, d] -> [B, L, d]."""
    attn = block.attn
    y = F.layer_norm(x, x.shape[-1:], block.ln_1.weight, block.ln_1.bias)
    q, k, v = (y @ attn.in_proj_weight.T + attn.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    heads = torch.softmax(scores if mask is None else scores + mask, dim=-1) @ v
    out = heads.transpose(1, 2).flatten(2) @ attn.out_proj.weight.T + attn.out_proj.bias
    x = x + adapt("attn", y, out)
    y = F.layer_norm(x, x.shape[-1:], block.ln_2.weight, block.ln_2.bias)
    hidden = F.gelu(y @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias)
    return x + adapt("mlp", y, hidden @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias)


def hand_made(model: nn.Module, inputs, adapt) -> torch.Tensor:
    """Unit features of images and texts [2 B, D]; `adapt` takes the site's name in front."""
    image = model.visual._embeds(inputs[0])
    for layer, block in enumerate(model.visual.transformer.resblocks):
        image = block_by_hand(block, image, lambda kind, *io, n=layer: adapt(f"image.{n}.{kind}", *io), None)
    image = model.visual.ln_post(image[:, 0]) @ model.visual.proj
    text = model.token_embedding(inputs[1]) + model.positional_embedding
    for layer, block in enumerate(model.transformer.resblocks):
        text = block_by_hand(block, text, lambda kind, *io, n=layer: adapt(f"text.{n}.{kind}", *io), model.attn_mask)
    text = model.ln_final(text)[range(len(text)), inputs[1].argmax(1)] @ model.text_projection
    return F.normalize(torch.cat([image, text]), dim=-1).detach()


def test_adapters_compute_what_their_papers_write(images, point, monkeypatch):
    """The tuned model's features in a forward pass by hand, from the trained numbers."""
    name, tune, config = point
    backbone = make_backbone()
    inputs = make_inputs(backbone.model)
    sites = [f"{t}.{n}.{k}" for t, n in (("image", 3), ("text", 2)) for n in range(n) for k in ("attn", "mlp")]
    sites = [site for site in sites if name == "Houlsby adapter" or site.endswith("mlp")]
    zero_shot = features(backbone.model, inputs)
    plain = hand_made(backbone.model, inputs, lambda site, x, y: y)
    torch.testing.assert_close(plain, zero_shot, rtol=0, atol=1e-5)  # the hand can do plain CLIP
    watched = []

    def watch(*args, state, **options):
        at_start = features(backbone.model, inputs)
        history = train(*args, state=state, **options)
        watched.append((at_start, features(backbone.model, inputs), state["adapters"]))
        return history

    monkeypatch.setattr(registry, "train", watch)
    tune(backbone, images, config)
    [(at_start, tuned, adapters)] = watched
    torch.testing.assert_close(at_start, zero_shot, rtol=0, atol=1e-6)
    adapter_of = dict(zip(sites, adapters, strict=True))

    def adapt(site, x, y):
        if site not in adapter_of:
            return y
        w = {key: value.mT if value.ndim == 2 else value for key, value in adapter_of[site].state_dict().items()}
        if name == "Houlsby adapter":
            return y + F.gelu(y @ w["down.weight"] + w["down.bias"]) @ w["up.weight"] + w["up.bias"]
        branch = torch.relu(x @ w["down.weight"] + w["down.bias"]) @ w["up.weight"] + w["up.bias"]
        return y + 0.5 * branch

    assert (tuned - zero_shot).abs().max() > 1e-2
    torch.testing.assert_close(hand_made(backbone.model, inputs, adapt), tuned, rtol=0, atol=1e-5)


def test_a_point_learns_counts_and_leaves_the_backbone(images, point):
    name, tune, config = point
    backbone = make_backbone()
    before, settings = copy.deepcopy(backbone.model.state_dict()), settings_of(backbone.model)
    zero_shot = predict(backbone, images)
    tuned = tune(backbone, images, config)
    assert tuned.history["loss"].tail(3).mean() < 0.9 * tuned.history["loss"].head(3).mean()
    each = sum(n * (d * 5 + 5 + 5 * d + d) for n, d in ((3, 64), (2, 48)))  # both layers with their biases
    assert tuned.trained_parameters == each * (2 if name == "Houlsby adapter" else 1)
    similarities = tuned.similarities(backbone, images)
    assert similarities.shape == (15, 3) and not similarities.requires_grad
    right = (similarities.argmax(1) == images.labels).sum()
    assert right >= (zero_shot.argmax(1) == images.labels).sum() and right >= 10
    assert same(backbone.model.state_dict(), before) and settings_of(backbone.model) == settings
    assert torch.equal(predict(backbone, images), zero_shot)
    assert torch.equal(
        tune(make_backbone(), images, config).similarities(backbone, images), similarities
    )  # the same bits
    with pytest.raises(ValueError, match=f"{name} learns no change of CLIP's own weights"):
        _ = tuned.delta


def test_a_point_gives_the_backbone_back_after_errors(images, point, monkeypatch, tmp_path):
    _, tune, config = point
    backbone = make_backbone()
    whole = tune(backbone, images, config)
    settings = settings_of(backbone.model)
    rate, calls = training.learning_rate, iter(range(100))

    def interrupted(*args):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return rate(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "learning_rate", interrupted)
        tune(backbone, images, config, checkpoint=tmp_path / "run.pt")
    assert settings_of(backbone.model) == settings
    with pytest.raises(TypeError):
        whole.similarities(backbone, None)  # which is no set of images
    assert settings_of(backbone.model) == settings
    resumed = tune(make_backbone(), images, config, checkpoint=tmp_path / "run.pt")
    assert torch.equal(resumed.similarities(backbone, images), whole.similarities(backbone, images))

    adapters = AdapterSet(backbone.model)
    for call in (lambda: tune(backbone, images, config), lambda: whole.similarities(backbone, images)):
        with pytest.raises(ValueError, match="already carries adapters"):
            call()
    adapters.remove()
    assert settings_of(backbone.model) == settings


@pytest.mark.parametrize("name", list(MODELS))
def test_every_layout_of_towers_can_be_tuned(images, name):
    model = MODELS[name]()
    size = model.visual.image_size
    transform = image_transform_v2(PreprocessCfg(size=size, mean=(0.5,) * 3, std=(0.5,) * 3), is_train=False)
    backbone = Backbone(model, tokenize_words, transform, name, "random")
    few = images.take([0, 5, 10])
    before, settings, zero_shot = (copy.deepcopy(model.state_dict()), settings_of(model), predict(backbone, few))
    short = TrainingConfig(epochs=2, batch_size=3, lr=1e-2)
    moved = [tune(backbone, few, replace(config, training=short)) for tune, config in POINTS.values()]
    changed = [point.similarities(backbone, few) for point in moved]
    weights = [fine_tuning(backbone, few, LossConfig(short)), flyp(backbone, few, LossConfig(short))]
    if name not in ("custom blocks", "timm eva"):
        weights.append(lora(backbone, few, LoRAConfig(short)))
    for tuned in weights:
        with tuned.delta.applied(model, 1.0):
            changed.append(predict(backbone, few))
    assert all((similarities - zero_shot).abs().max() > 1e-4 for similarities in changed)
    assert same(model.state_dict(), before) and settings_of(model) == settings


@pytest.mark.parametrize("config", [HoulsbyConfig, AdaptFormerConfig])
def test_bottlenecks_settings_are_checked(config):
    with pytest.raises(ValueError, match="bottleneck must be a whole number of 1 or more, not 0"):
        config(bottleneck=0)


# --- the paper's E0: the adapter without dropping, averaging or re-scaling ---


def test_without_dropping_and_averaging_r_adapter_is_the_plain_adapter(images, monkeypatch):
    """Against matrices that hooks written out here put behind attention and MLP, trained by the same loop."""
    config = RAdapterConfig(TRAINING, 0.05, AdapterConfig(drop_prob=0.0, momentum=0.0))
    sets = []
    monkeypatch.setattr(
        sys.modules[r_adapter.__module__], "AdapterSet", lambda *args: sets.append(AdapterSet(*args)) or sets[-1]
    )
    found = r_adapter(make_backbone(), images, config)
    for site in sets[0].sites:
        assert torch.equal(found.delta.tensors[site.linear], sets[0][site].weight)
        assert torch.equal(sets[0][site].average, sets[0][site].weight)

    backbone = make_backbone()
    matrices = nn.ParameterDict()
    for site in sets[0].sites:
        width = backbone.model.get_parameter(f"{site.linear}.weight").shape[0]
        matrices[site.name.replace(".", "_")] = matrix = nn.Parameter(torch.zeros(width, width))

        def hook(module, inputs, output, matrix=matrix):
            x = output[0] if isinstance(output, tuple) else output
            h = x @ matrix + x
            return (h, None) if isinstance(output, tuple) else h

        backbone.model.get_submodule(site.hooked).register_forward_hook(hook)
    criterion = lambda *args: mpm_nce(*args, temperature=0.05, margin=0.05, smoothing=0.02)  # noqa: E731
    loss = pair_loss(backbone, as_task(images), criterion)
    batches = as_task(images).batches(backbone, TRAINING)
    history = train(batches, loss, matrices.parameters(), TRAINING, state={"matrices": matrices})
    assert list(history["loss"]) == pytest.approx(list(found.history["loss"]), rel=1e-4)
    for site in sets[0].sites:
        expected = matrices[site.name.replace(".", "_")]
        torch.testing.assert_close(found.delta.tensors[site.linear], expected, rtol=0, atol=1e-4)


# --- a text encoder that is not tuned ---


@pytest.mark.parametrize("adversarial", [0.0, 0.1])
def test_texts_are_encoded_once_where_their_encoder_is_not_tuned(images, adversarial, monkeypatch):
    """And as often as before where an adversary moves their embeddings."""
    tunings = []
    for encoder in (objectives.text_encoder, lambda backbone, _: backbone.encode_texts):
        monkeypatch.setattr(objectives, "text_encoder", encoder)
        seen = []
        backbone = make_backbone()
        block = backbone.model.transformer.resblocks[0]
        block.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(len(inputs[0])))
        adapter = AdapterConfig(momentum=0.5, towers=("image",))
        tuned = r_adapter(backbone, images, RAdapterConfig(replace(TRAINING, adversarial=adversarial), 0.05, adapter))
        tunings.append((tuned.history["loss"].tolist(), sum(seen)))
    (losses, encoded), (expected, encoded_each_step) = tunings
    assert losses == pytest.approx(expected, rel=1e-4)
    if adversarial:
        assert encoded == encoded_each_step
    else:
        first = TRAINING.batch_size  # by which it is seen whether they are tuned
        assert encoded <= 3 * len(make_backbone().prompts) + first < encoded_each_step
