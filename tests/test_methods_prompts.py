"""Methods that learn prompts and prefixes, each against plain encoding or attention written out."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TEXT, TIMM, VISION, features, make_backbone, make_clip, make_folder, make_inputs
from open_clip.coca_model import CoCa
from open_clip.model import CustomTextCLIP
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import nn

from radapter_lite.backbone import load_clip
from radapter_lite.backbone.pictoclip import PROMPTS
from radapter_lite.backbone.sites import Attachment
from radapter_lite.data import load_images
from radapter_lite.encoding import image_features, predict
from radapter_lite.methods.prompts import (
    CoOpConfig,
    PrefixConfig,
    Prefixes,
    PromptLSTM,
    PTuningConfig,
    attend,
    coop,
    embed_words,
    encode_prompts,
    p_tuning,
    prefix_tuning,
    prompt_tokens,
)
from radapter_lite.training import TrainingConfig

TRAINING = TrainingConfig(epochs=12, batch_size=8, lr=2e-2, crop=0.9)  # 2 steps an epoch
STILL = TrainingConfig(epochs=1, batch_size=64, lr=1e-12, min_lr=1e-12, crop=1.0, flip=False)  # one step
METHODS = {
    "CoOp": (coop, CoOpConfig(TRAINING, temperature=0.05)),
    "P-tuning": (p_tuning, PTuningConfig(replace(TRAINING, lr=5e-3), temperature=0.05)),
    "prefix tuning": (prefix_tuning, PrefixConfig(TRAINING, temperature=0.05)),
}


def make_coca():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = VISION | dict(attentional_pool=True, attn_pooler_heads=2, output_tokens=True)
        text = TEXT | dict(embed_cls=True, output_tokens=True)
        model = CoCa(32, dict(context_length=8, width=32, heads=2, layers=1), text, vision)
        torch.nn.init.normal_(model.text_decoder.text_projection)  # else memory's content, and NaN at times
    return model.eval()


TOWERS = {
    "plain": lambda: make_clip(),
    "apart, both ways": lambda: make_clip(kind=CustomTextCLIP, text=dict(no_causal_mask=True, pool_type="last")),
    "coca": make_coca,
    "timm image": lambda: make_clip(kind=CustomTextCLIP, vision=TIMM),
    "custom image blocks": lambda: make_clip(vision=VISION | dict(qk_norm=True)),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load_images(make_folder(tmp_path_factory.mktemp("prompts"))).few_shot(5)  # 3 x 5


@pytest.fixture
def backbone():
    return make_backbone()


@pytest.fixture(params=list(TOWERS))
def any_backbone(request):
    model = TOWERS[request.param]()
    config = PreprocessCfg(size=model.visual.image_size, mean=(0.5,) * 3, std=(0.5,) * 3)
    return replace(make_backbone(), model=model, preprocess=image_transform_v2(config, is_train=False))


@pytest.fixture(scope="module")
def picto():
    return load_clip()


def test_a_checkpoint_of_another_method_is_refused(images, backbone, tmp_path):
    short = replace(TRAINING, epochs=1)
    coop(backbone, images, CoOpConfig(short), checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="is of a run with method=CoOp, this one has P-tuning"):
        p_tuning(backbone, images, PTuningConfig(short), checkpoint=tmp_path / "run.pt")


def accuracy(similarities, images):
    return (similarities.argmax(1) == images.labels).float().mean()


def is_untouched(backbone, before):
    state = backbone.model.state_dict()
    modules = list(backbone.model.modules())
    return (
        state.keys() == before.keys()
        and all(torch.equal(state[name], before[name]) for name in state)
        and all(p.requires_grad and p.grad is None for p in backbone.model.parameters())
        and not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
        and not any("forward" in vars(module) for module in modules)
        and not backbone.model.training
    )


@torch.no_grad()
def encode(backbone, texts):
    return backbone.model.encode_text(backbone.tokenizer(texts), normalize=True)


@pytest.mark.parametrize("name", METHODS)
def test_it_trains_and_leaves_the_backbone_as_it_was(name, images, backbone):
    tune, config = METHODS[name]
    before, state = copy.deepcopy(backbone.model.state_dict()), torch.get_rng_state()
    point = tune(backbone, images, config)
    similarities = point.similarities(backbone, images)
    assert is_untouched(backbone, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert point.method == name and similarities.shape == (15, 3) and not similarities.requires_grad
    assert len(point.history) == 24
    assert point.history["loss"].tail(4).mean() < 0.9 * point.history["loss"].head(4).mean()
    assert accuracy(similarities, images) > accuracy(predict(backbone, images), images)
    with pytest.raises(ValueError, match=f"{name} learns no change of CLIP's own weights"):
        _ = point.delta

    torch.manual_seed(5)  # the caller's random numbers have no part in it
    assert torch.equal(tune(make_backbone(), images, config).similarities(backbone, images), similarities)
    other = tune(backbone, images, replace(config, training=replace(config.training, seed=1)))
    assert not torch.equal(other.similarities(backbone, images), similarities)


@pytest.mark.parametrize("name", METHODS)
def test_an_interrupted_training_restores_the_backbone_and_ends_in_the_same_bits(
    name, images, backbone, monkeypatch, tmp_path
):
    tune, config = METHODS[name]
    config = replace(config, training=replace(config.training, epochs=5))
    whole = tune(backbone, images, config).similarities(backbone, images)
    before = copy.deepcopy(backbone.model.state_dict())
    norm, calls = backbone.model.visual.ln_post.forward, iter(range(100))  # reached with all hooks in place

    def failing(x):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return norm(x)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(backbone.model.visual.ln_post, "forward", failing)
        tune(backbone, images, config, checkpoint=tmp_path / "run.pt")
    vars(backbone.model.visual.ln_post).pop("forward", None)  # the patch's own trace
    assert is_untouched(backbone, before)
    resumed = tune(backbone, images, config, checkpoint=tmp_path / "run.pt")
    assert torch.equal(resumed.similarities(backbone, images), whole)
    assert len(resumed.history) == 10

    def fail(file):
        raise OSError("no such image")

    with pytest.raises(OSError, match="no such image"):
        resumed.similarities(backbone, replace(images, _read=fail, _tensors=type(images._tensors)()))
    assert is_untouched(backbone, before)


LSTM = 2 * 2 * (4 * 24 * (48 + 24) + 8 * 24)  # layers, directions; gates from input and state, two biases


@pytest.mark.parametrize(
    ("tune", "config", "count"),
    [
        (coop, CoOpConfig(STILL, context_length=3), 3 * 48),
        (coop, CoOpConfig(STILL, context_length=0), 0),
        (p_tuning, PTuningConfig(STILL, context_length=3), 3 * 48 + LSTM + 2 * (48 * 48 + 48)),
        (prefix_tuning, PrefixConfig(STILL, length=3), 2 * 2 * 3 * 48 + 3 * 3 * 64),
        (prefix_tuning, PrefixConfig(STILL, length=5, towers=("text",)), 2 * 2 * 5 * 48),
        (prefix_tuning, PrefixConfig(STILL, length=5, towers=("image",)), 3 * 5 * 64),
    ],
)
def test_trained_parameters_are_counted(tune, config, count, images, backbone):
    assert tune(backbone, images, config).trained_parameters == count


# --- prompts: CoOp and P-tuning ---


def test_no_context_is_zero_shot_with_the_bare_name(images, any_backbone):
    found = coop(any_backbone, images, CoOpConfig(STILL, context_length=0)).similarities(any_backbone, images)
    expected = image_features(any_backbone, images) @ encode(any_backbone, images.classes).T
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_context_of_words_embeddings_is_the_prompt_of_these_words(images, any_backbone):
    vectors = embed_words(any_backbone, "an icon of a", 4)
    tokens = prompt_tokens(any_backbone, images.classes, 4)
    with torch.no_grad():
        found = encode_prompts(any_backbone, tokens, vectors)
    expected = encode(any_backbone, [f"an icon of a {name}" for name in images.classes])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    point = coop(any_backbone, images, CoOpConfig(STILL, init_text="an icon of a"))
    torch.testing.assert_close(
        point.similarities(any_backbone, images), image_features(any_backbone, images) @ expected.T, rtol=0, atol=1e-5
    )
    assert (expected - encode(any_backbone, images.classes)).abs().max() > 1e-2


def test_pictoclips_own_words_too(picto):
    names = load_images().classes
    found = encode_prompts(picto, prompt_tokens(picto, names, 4), embed_words(picto, "an icon of a", 4))
    expected = encode(picto, [PROMPTS[1].format(name) for name in names])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        encode_prompts(picto, prompt_tokens(picto, names, 0), embed_words(picto, "", 0)), encode(picto, names)
    )


@pytest.mark.parametrize(("method", "settings"), [(coop, CoOpConfig), (p_tuning, PTuningConfig)])
def test_the_context_begins_as_its_words_and_serves_other_classes(images, backbone, method, settings):
    point = method(backbone, images, settings(STILL, init_text="a photo of a"))
    others = replace(images, classes=["red", "teal", "green", "dark blue"])
    expected = encode(backbone, [f"a photo of a {name}" for name in others.classes])
    torch.testing.assert_close(
        point.similarities(backbone, others), image_features(backbone, others) @ expected.T, rtol=0, atol=1e-5
    )


def test_the_trained_context_alone_is_what_changes(images, backbone, tmp_path):
    """The point's similarities are those of a second encoding, from the checkpoint's vectors."""
    config = CoOpConfig(replace(TRAINING, epochs=3), context_length=2, temperature=0.05)
    point = coop(backbone, images, config, checkpoint=tmp_path / "run.pt")
    vectors = torch.load(tmp_path / "run.pt", weights_only=True)["parts"]["prompt"]["vectors"]
    model, ids = backbone.model, backbone.tokenizer(images.classes)
    rows = []
    with torch.no_grad():
        for name in ids:
            length = int(name.argmax()) + 1
            x = torch.cat([vectors, model.token_embedding(name[:length])])  # (2 + length, width)
            mask = model.attn_mask[: len(x), : len(x)]
            x = model.transformer((x + model.positional_embedding[: len(x)])[None], attn_mask=mask)
            rows.append((model.ln_final(x)[0, -1] @ model.text_projection)[None])
        head = nn.functional.normalize(torch.cat(rows), dim=-1)
    torch.testing.assert_close(
        point.similarities(backbone, images), image_features(backbone, images) @ head.T, rtol=0, atol=1e-5
    )


def test_the_lstm_by_hand():
    torch.manual_seed(0)
    prompt = PromptLSTM(3, 6)
    state = {name: value.detach().double().numpy() for name, value in prompt.state_dict().items()}

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def run(xs, suffix):
        h, c, found = np.zeros(3), np.zeros(3), []
        for x in xs:
            gates = state[f"lstm.weight_ih_{suffix}"] @ x + state[f"lstm.bias_ih_{suffix}"]
            gates = gates + state[f"lstm.weight_hh_{suffix}"] @ h + state[f"lstm.bias_hh_{suffix}"]
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            found.append(h)
        return found

    x = list(state["inputs"])
    for layer in (0, 1):
        there, back = run(x, f"l{layer}"), run(x[::-1], f"l{layer}_reverse")[::-1]
        x = [np.concatenate(pair) for pair in zip(there, back, strict=True)]
    hidden = np.maximum(np.stack(x) @ state["mlp.0.weight"].T + state["mlp.0.bias"], 0)
    expected = hidden @ state["mlp.2.weight"].T + state["mlp.2.bias"]
    np.testing.assert_allclose(prompt().detach(), expected, atol=1e-6)


def test_p_tuning_uses_the_vectors_the_lstm_makes(images, backbone):
    point = p_tuning(backbone, images, PTuningConfig(STILL, context_length=2))
    with torch.random.fork_rng():
        torch.manual_seed(STILL.seed)
        vectors = PromptLSTM(2, 48)().detach()
    with torch.no_grad():
        head = encode_prompts(backbone, prompt_tokens(backbone, images.classes, 2), vectors)
    torch.testing.assert_close(
        point.similarities(backbone, images), image_features(backbone, images) @ head.T, rtol=0, atol=1e-5
    )


def test_what_does_not_fit_is_refused_in_a_sentence(images, backbone, picto):
    with pytest.raises(ValueError, match=re.escape("takes 8 tokens, and the class name 'dark blue' leaves room for 5")):
        coop(backbone, images, CoOpConfig(context_length=6))
    with pytest.raises(ValueError, match="'a photo of' is 3 tokens where context_length is 4"):
        coop(backbone, images, CoOpConfig(init_text="a photo of"))
    with pytest.raises(ValueError, match="leaves room for 0 learned vectors, not 1"):
        prompt_tokens(picto, ["a name of far more words than the text encoder takes in one prompt"], 1)
    with pytest.raises(ValueError, match="context_length must be a whole number of 1 or more"):
        PTuningConfig(context_length=0)
    with pytest.raises(ValueError, match="context_length must be a whole number of 0 or more"):
        CoOpConfig(context_length=-1)

    class HFTextEncoder(nn.Module):
        pass

    backbone.model.text = HFTextEncoder()
    for tune, config in METHODS.values():
        with pytest.raises(ValueError, match="text tower is a HFTextEncoder, whose token embeddings cannot"):
            tune(backbone, images, config)


# --- prefixes ---


def written_out(attention, x, mask, keys, values):
    """Attention over the prefix and the tokens, position by position and head by head."""
    w_q, w_k, w_v = attention.in_proj_weight.detach().double().chunk(3)
    b_q, b_k, b_v = attention.in_proj_bias.detach().double().chunk(3)
    w_o, b_o = attention.out_proj.weight.detach().double(), attention.out_proj.bias.detach().double()
    size = x.shape[-1] // attention.num_heads
    rows = []
    for sequence in x.double():
        k = torch.cat([keys.double(), sequence @ w_k.T + b_k])  # K' = [P_k; K]
        v = torch.cat([values.double(), sequence @ w_v.T + b_v])
        q = sequence @ w_q.T + b_q
        out = torch.zeros_like(q)
        for position in range(len(q)):
            seen = len(keys) + (position + 1 if mask is not None else len(q))
            for head in range(attention.num_heads):
                part = slice(head * size, (head + 1) * size)
                scores = [float(q[position, part] @ k[other, part]) / size**0.5 for other in range(seen)]
                weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
                out[position, part] = weights @ v[:seen, part]
        rows.append(out @ w_o.T + b_o)
    return torch.stack(rows)


@pytest.mark.parametrize("causal", [True, False])
def test_prefixed_attention_written_out(causal, backbone):
    torch.manual_seed(1)
    attention = backbone.model.transformer.resblocks[0].attn
    x, keys, values = torch.randn(2, 8, 48), torch.randn(3, 48), torch.randn(3, 48)
    mask = backbone.model.attn_mask if causal else None
    with torch.no_grad():
        found, _ = attend(attention, keys, values, x, attn_mask=mask)
        expected = written_out(attention, x, mask, keys, values).float()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        plain, _ = attention(x, x, x, need_weights=False, attn_mask=mask)
        torch.testing.assert_close(attend(attention, keys[:0], values[:0], x, attn_mask=mask)[0], plain)
        if mask is not None:  # the same mask, given for each sequence and head as CoCa gives it
            wide, _ = attend(attention, keys, values, x, attn_mask=mask.expand(4, -1, -1))
            torch.testing.assert_close(wide, found)
    assert (found - plain).abs().max() > 1e-2


def fill(prefixes):
    with torch.no_grad():
        for parameter in prefixes.parameters():
            parameter.normal_()


def test_every_text_layer_reads_its_own_keys_and_values(backbone):
    model = backbone.model
    torch.manual_seed(2)
    prefixes = Prefixes(model, 3, ("text",))
    fill(prefixes)
    images, tokens = make_inputs(model)
    with torch.no_grad():
        with prefixes.installed(model):
            found = model.encode_text(tokens)
            pictures = model.encode_image(images)
        x = model.token_embedding(tokens) + model.positional_embedding
        for layer, block in enumerate(model.transformer.resblocks):
            keys, values = prefixes.text[layer]
            x = x + written_out(block.attn, block.ln_1(x), model.attn_mask, keys, values).float()
            x = x + block.mlp(block.ln_2(x))
        pooled = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(1)]
        torch.testing.assert_close(found, pooled @ model.text_projection, rtol=0, atol=1e-4)
        assert torch.equal(pictures, model.encode_image(images))
        assert (found - model.encode_text(tokens)).abs().max() > 1e-2


def test_every_image_layer_reads_its_own_tokens(backbone):
    model, visual = backbone.model, backbone.model.visual
    torch.manual_seed(3)
    prefixes = Prefixes(model, 3, ("image",))
    fill(prefixes)
    images, tokens = make_inputs(model)
    with torch.no_grad():
        with prefixes.installed(model):
            found = model.encode_image(images)
            texts = model.encode_text(tokens)
        x = visual._embeds(images)  # (B, 1 + patches, width), the class token first
        for layer, block in enumerate(visual.transformer.resblocks):
            learned = prefixes.image[layer].expand(len(x), -1, -1)
            x = block(torch.cat([x[:, :1], learned, x[:, 1:]], dim=1))  # where VPT puts them
            x = torch.cat([x[:, :1], x[:, 4:]], dim=1)
        expected = visual.ln_post(x)[:, 0] @ visual.proj
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        with Attachment(model, {}):  # as while something is attached, to the bit
            assert torch.equal(texts, model.encode_text(tokens))
        assert (found - model.encode_image(images)).abs().max() > 1e-2


def test_prefixes_fit_every_tower_of_open_clip(any_backbone):
    model = any_backbone.model
    timm = not hasattr(model.visual, "transformer")
    before, inputs = copy.deepcopy(model.state_dict()), make_inputs(model)
    zero_shot = features(model, inputs)
    prefixes = Prefixes(model, 2, ("text",) if timm else ("image", "text"))
    fill(prefixes)
    with prefixes.installed(model):
        moved = (features(model, inputs) - zero_shot).abs().amax(1)
        assert (moved[len(moved) // 2 :] > 1e-3).all() and (moved > 1e-3).all() != timm
    assert torch.equal(features(model, inputs), zero_shot)
    assert is_untouched(any_backbone, before)
    if timm:
        with pytest.raises(ValueError, match="image tower is a TimmModel, whose layers take no learned tokens"):
            Prefixes(model, 2, ("image",))


def test_a_text_tower_with_other_attention_is_refused(images):
    backbone = replace(make_backbone(), model=make_clip(text=dict(qk_norm=True)))
    before = copy.deepcopy(backbone.model.state_dict())
    with pytest.raises(ValueError, match=re.escape("the text tower's attention (Attention) normalizes")):
        prefix_tuning(backbone, images, PrefixConfig())
    assert is_untouched(backbone, before)
    assert prefix_tuning(backbone, images, PrefixConfig(STILL, towers=("image",))).trained_parameters


@pytest.mark.parametrize("towers", [("image",), ("text",), ("image", "text")])
def test_the_tower_that_has_no_prefixes_stays(towers, images, backbone):
    config = PrefixConfig(replace(TRAINING, epochs=2), towers=towers)
    point = prefix_tuning(backbone, images, config)
    zero_shot = features(backbone.model, make_inputs(backbone.model))
    seen = {}
    model, inputs = backbone.model, make_inputs(backbone.model)
    encode_image = model.encode_image

    def spy(images, normalize=False):
        if not seen:
            model.encode_image = encode_image
            seen["features"] = features(model, inputs)
            model.encode_image = spy
        return encode_image(images, normalize=normalize)

    model.encode_image = spy
    point.similarities(backbone, images)
    del model.encode_image
    moved = (seen["features"] - zero_shot).abs().amax(1) > 1e-6
    assert moved.tolist() == [tower in towers for tower in ("image", "text") for _ in range(3)]


def test_settings_of_prefixes_out_of_range_are_refused():
    with pytest.raises(ValueError, match="length must be a whole number of 1 or more, not 0"):
        PrefixConfig(length=0)
    for towers in ((), ("images",)):
        with pytest.raises(ValueError, match="towers must be 'image', 'text' or both"):
            PrefixConfig(towers=towers)


def test_on_pictograms_each_learns(picto):
    pictures = load_images()
    images = replace(pictures, classes=pictures.classes[:6]).select(classes=pictures.classes[:6]).few_shot(1)
    training = TrainingConfig(epochs=8, batch_size=6, lr=1e-2, crop=1.0, flip=False, precision="bfloat16")
    before = copy.deepcopy(picto.model.state_dict())
    for tune, config in (
        (coop, CoOpConfig(training, init_text="an icon of a")),
        (p_tuning, PTuningConfig(replace(training, lr=3e-3))),
        (prefix_tuning, PrefixConfig(training)),
    ):
        point = tune(picto, images, config)
        assert point.similarities(picto, images).shape == (6, 6)
        assert point.history["loss"].iloc[-1] < 0.8 * point.history["loss"].iloc[0], point.method
        assert is_untouched(picto, before)
