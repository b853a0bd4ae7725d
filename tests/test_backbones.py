"""load_clip: every way in, every mistake, and the method on real architectures with random weights."""

import logging
import pickle
import time
from dataclasses import replace

import huggingface_hub.constants
import pytest
import torch
from conftest import VISION, features, fill, make_backbone, make_clip, make_inputs, step
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.coca_model import CoCa
from open_clip.model import CustomTextCLIP
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.backbone import Backbone, hub, load_clip
from radapter_lite.backbone.hub import HubError
from radapter_lite.backbone.load import tokenize
from radapter_lite.backbone.sites import find_blocks


@pytest.fixture
def picto(monkeypatch):
    """A small stand-in for the embedded backbone."""

    def load_pictoclip(pretrained="picto"):
        preprocess = image_transform_v2(PreprocessCfg(size=32, mean=(0.5,) * 3, std=(0.25,) * 3), is_train=False)
        model = make_clip(seed=int(torch.randint(1 << 30, ())) if pretrained == "random" else 0)
        return model, lambda texts: torch.zeros(len(texts), 8, dtype=torch.long), preprocess

    monkeypatch.setattr("radapter_lite.backbone.pictoclip.load_pictoclip", load_pictoclip)


@pytest.fixture
def offline(monkeypatch):
    """A machine without network and with an empty cache; every try to reach the hub is counted."""
    calls = []

    def urlopen(*arguments, **settings):
        calls.append(arguments)
        raise OSError("no network")

    def download(*arguments, **settings):
        raise OSError("not in the cache")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setattr("open_clip.pretrained.hf_hub_download", download)
    return calls


# --- picto ---


def test_picto_is_the_default(picto):
    backbone = load_clip()
    assert (backbone.name, backbone.pretrained) == ("picto", "picto")
    assert not backbone.model.training
    assert backbone.preprocess(Image.new("RGB", (40, 50))).shape == (3, 32, 32)
    assert backbone.tokenizer(["a", "b"]).shape == (2, 8)
    with pytest.raises(AttributeError):
        backbone.name = "other"


def test_random_picto_is_seeded_and_leaves_the_global_state(picto):
    before = torch.get_rng_state()
    models = [load_clip("picto", "random", seed=seed).model for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), before)
    weights = [model.visual.proj for model in models]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_picto_takes_a_local_checkpoint(picto, tmp_path):
    tuned = make_clip(seed=5)
    save_file(tuned.state_dict(), tmp_path / "tuned.safetensors")
    backbone = load_clip("picto", tmp_path / "tuned.safetensors")
    assert backbone.pretrained == "tuned.safetensors"
    assert torch.equal(backbone.model.visual.proj, tuned.visual.proj)


# --- names ---


@pytest.mark.parametrize(
    ("name", "nearest"), [("ViT-B-99", "ViT-B-32, ViT-B-16"), ("vit-b32", "ViT-B-32"), ("pikto", "picto")]
)
def test_an_unknown_name_lists_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"{name} is no open_clip model; the nearest names are .*{nearest}"):
        load_clip(name)


def test_weights_must_be_said_and_known():
    with pytest.raises(ValueError, match="ViT-B-32 needs weights: set pretrained to one of openai, .*'random'"):
        load_clip("ViT-B-32")
    with pytest.raises(ValueError, match="the nearest tags are .*laion2b_s34b_b79k.* 'random' always works"):
        load_clip("ViT-B/32", "laion2b_s34b")
    with pytest.raises(ValueError, match="openai of ViT-B-32 was trained with QuickGELU: load ViT-B-32-quickgelu"):
        load_clip("ViT-B-32", "openai")
    for source in ("laion", "random"):
        with pytest.raises(ValueError, match=f"hf-hub:a/b brings its own weights: .* instead of {source}"):
            load_clip("hf-hub:a/b", source)


# --- the hub ---


@pytest.mark.parametrize(
    ("name", "pretrained", "what"),
    [
        ("ViT-B-32", "laion2b_s34b_b79k", "ViT-B-32 with weights laion2b_s34b_b79k"),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", None, "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    ],
)
def test_an_unreachable_hub_is_one_sentence_at_once(offline, name, pretrained, what, caplog):
    start = time.perf_counter()
    with pytest.raises(HubError) as failure:
        load_clip(name, pretrained)
    assert time.perf_counter() - start < 5
    assert str(failure.value) == (
        f"{what} is not on this machine and https://huggingface.co cannot be reached: "
        f"offline, 'picto', the path of a local checkpoint and pretrained='random' work"
    )
    assert len(offline) == 1 and not caplog.records
    assert not huggingface_hub.constants.HF_HUB_OFFLINE and logging.root.manager.disable == 0


def test_a_checkpoint_is_loaded_over_a_hub_repositorys_weights(tmp_path, monkeypatch):
    """A model merged from one is loaded again by the line that `export` prints."""
    asked = []

    def build(name, tag):
        asked.append((name, tag))
        return make_clip(seed=1), None, None

    monkeypatch.setattr("radapter_lite.backbone.load._build", build)
    merged = make_clip(seed=5)
    save_file(merged.state_dict(), tmp_path / "merged.safetensors")
    backbone = load_clip("hf-hub:a/b", tmp_path / "merged.safetensors")
    assert asked == [("hf-hub:a/b", "hf-hub")]
    assert (backbone.name, backbone.pretrained) == ("hf-hub:a/b", "merged.safetensors")
    assert torch.equal(backbone.model.visual.proj, merged.visual.proj)
    for source in (None, "hf-hub"):
        assert load_clip("hf-hub:a/b", source).pretrained == "hf-hub"
    with pytest.raises(FileNotFoundError, match="the checkpoint .*missing.pt does not exist"):
        load_clip("hf-hub:a/b", tmp_path / "missing.pt")
    save_file(make_clip(text=dict(width=32)).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other.safetensors does not fit hf-hub:a/b"):
        load_clip("hf-hub:a/b", tmp_path / "other.safetensors")


def test_a_hub_that_answers_with_a_failure_is_one_sentence(offline, monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda url, timeout=5: True)
    with pytest.raises(HubError, match=r"hf-hub:a/b could not be fetched \(.*not in the cache\): offline, 'picto'"):
        load_clip("hf-hub:a/b")


def test_the_cache_is_enough_and_the_network_comes_second(monkeypatch):
    seen = []

    def build():
        seen.append(huggingface_hub.constants.HF_HUB_OFFLINE)
        if len(seen) == 2:
            raise OSError("not cached")
        return len(seen)

    monkeypatch.setattr(hub, "reachable", lambda url, timeout=5: True)
    assert hub.from_hub(build, "a thing", "") == 1 and seen == [True]
    assert hub.from_hub(build, "a thing", "") == 3 and seen == [True, True, False]


def test_reaching(monkeypatch):
    def answer(error):
        def urlopen(request, timeout):
            assert timeout <= 5
            raise error

        monkeypatch.setattr("urllib.request.urlopen", urlopen)
        return hub.reachable("https://huggingface.co")

    assert answer(hub.urllib.error.HTTPError("", 403, "forbidden", None, None))
    assert not answer(TimeoutError())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert not answer(hub.urllib.error.HTTPError("", 403, "forbidden", None, None))


def test_a_tokenizer_is_made_when_it_is_used(offline, monkeypatch):
    def fail(*arguments, **settings):
        raise OSError("We couldn't connect")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", fail)
    with pytest.raises(HubError, match="the tokenizer of ViT-B-16-SigLIP is not on this machine and .*'picto'"):
        tokenize("ViT-B-16-SigLIP", ["a cat"])
    assert tokenize("ViT-B-32", ["a cat", "a dog"]).shape == (2, 77)  # CLIP's own needs no hub


# --- checkpoints ---


class Malicious:
    def __reduce__(self):
        return (exec, ("import builtins; builtins.code_was_run = True",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": {"visual.proj": torch.zeros(1)}, "extra": Malicious()}, path)
    plain = tmp_path / "weights.bin"
    plain.write_bytes(pickle.dumps(Malicious(), protocol=2))
    for file in (path, plain):
        with pytest.raises(ValueError, match="is refused because it is damaged or holds more than tensors"):
            load_clip("ViT-B-32", file)
    assert not hasattr(__import__("builtins"), "code_was_run")


def test_checkpoints_that_are_none(picto, tmp_path):
    for name in ("missing.pt", "missing.safetensors"):
        with pytest.raises(FileNotFoundError, match=f"the checkpoint .*{name} does not exist"):
            load_clip("ViT-B-32", tmp_path / name)
    other = tmp_path / "weights.txt"
    other.write_text("hello")
    with pytest.raises(ValueError, match="is no checkpoint: expected a file ending in .safetensors, .pt"):
        load_clip("ViT-B-32", other)
    save_file(make_clip().state_dict(), tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:5000])
    with pytest.raises(ValueError, match="cut.safetensors is damaged or no safetensors file"):
        load_clip("ViT-B-32", tmp_path / "cut.safetensors")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="list.pt holds no state dict"):
        load_clip("ViT-B-32", tmp_path / "list.pt")
    save_file(make_clip(text=dict(width=32)).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors does not fit picto \(.*\): name the architecture"):
        load_clip("picto", tmp_path / "other.safetensors")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_of_torch_is_taken_as_it_is(picto, tmp_path, wrapped):
    tuned = make_clip(seed=5).state_dict()
    torch.save({"epoch": 3, "state_dict": tuned} if wrapped else tuned, tmp_path / "tuned.pt")
    assert torch.equal(load_clip("picto", str(tmp_path / "tuned.pt")).model.visual.proj, tuned["visual.proj"])


def test_random_weights_are_never_what_the_memory_held():
    """Deterministic PyTorch fills memory that nobody initialized with NaN."""
    torch.use_deterministic_algorithms(True)
    try:
        model = load_clip("coca_ViT-B-32", pretrained="random").model
    finally:
        torch.use_deterministic_algorithms(False)
    for name, tensor in model.state_dict().items():
        assert not tensor.isnan().any(), name


def test_the_temperature_is_the_models_own():
    picto = load_clip()
    assert picto.temperature == pytest.approx(1 / picto.model.logit_scale.exp().item())
    assert load_clip("ViT-B-32", pretrained="random").temperature == pytest.approx(0.07)


# --- texts are encoded up to the longest of a batch ---

CUSTOM = {"kind": CustomTextCLIP}
COCA_VISION = VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}


def small_coca(width, vision, text):
    return CoCa(width, dict(context_length=8, width=width, heads=2, layers=1), text, vision)


TEXTS = {
    "clip": ({}, 5),
    "clip, end token": ({"text": {"pool_type": "eos", "eos_id": 49}}, 5),
    "apart": (CUSTOM, 5),
    "apart, end token, projection": (CUSTOM | {"text": {"pool_type": "eos", "eos_id": 49, "proj_bias": True}}, 5),
    "apart, no projection": (CUSTOM | {"text": {"proj_type": "none", "width": 32}}, 5),
    "apart, own blocks": (CUSTOM | {"text": {"qk_norm": True, "scale_attn_inner": True}}, 5),
    "no mask": ({"text": {"no_causal_mask": True}}, 8),
    "apart, no mask": (CUSTOM | {"text": {"no_causal_mask": True}}, 8),
    "last token": (CUSTOM | {"text": {"pool_type": "last"}}, 8),
    "first token": ({"text": {"pool_type": "first"}}, 8),
    "class token": (CUSTOM | {"text": {"embed_cls": True}}, 9),
    "CoCa": ({"kind": small_coca, "text": {"embed_cls": True, "output_tokens": True}, "vision": COCA_VISION}, 9),
}


@pytest.mark.parametrize("family", TEXTS)
def test_padding_is_not_encoded_where_it_changes_nothing(family):
    settings, length = TEXTS[family]
    model = make_clip(**settings)
    backbone = replace(make_backbone(), model=model)
    tokens = torch.randint(1, 48, (3, 8), generator=torch.Generator().manual_seed(0))
    for row, end in enumerate((2, 4, 3)):
        tokens[row, end], tokens[row, end + 1 :] = 49, 0
    seen, found = [], []
    first = model.get_submodule(find_blocks(model, "text")[0])
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    for encode in (backbone.encode_texts, lambda ids: model.encode_text(ids, normalize=True)):
        model.zero_grad()
        features = encode(tokens)
        features[:, 0].sum().backward()
        found.append([features, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)])
    assert seen == [length, 8 if length == 5 else length]
    assert len(found[0]) == len(found[1]) > 10
    for short, whole in zip(*found, strict=True):
        torch.testing.assert_close(short, whole, rtol=1e-5, atol=1e-6)


def test_adapters_behind_a_text_tower_fire_on_short_texts_too():
    backbone = make_backbone()
    adapters = AdapterSet(backbone.model, AdapterConfig(drop_prob=0.0, towers=("text",)))
    fill(adapters)
    tokens = backbone.tokenizer(["red", "dark blue"])
    short, whole = backbone.encode_texts(tokens), backbone.model.encode_text(tokens, normalize=True)
    adapters.remove()
    assert (short - whole).abs().max() < 1e-6 < 1e-3 < (short - backbone.encode_texts(tokens)).abs().max()


# --- real architectures ---


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "coca_ViT-B-32", "ViT-B-16-SigLIP"])
def test_real_architectures_attach_tune_merge(name):
    backbone = load_clip(name, pretrained="random")
    model = backbone.model
    assert isinstance(backbone, Backbone)
    white = backbone.preprocess(Image.new("RGB", (300, 300), "white"))  # as the published weights want images
    mean, std = ((0.5,) * 3,) * 2 if "SigLIP" in name else (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    expected = (1 - torch.tensor(mean)) / torch.tensor(std)
    assert white.shape == (3, 224, 224)
    torch.testing.assert_close(white.amax((1, 2)), expected, rtol=0, atol=1e-3)
    inputs = make_inputs(model, batch=1 if name == "ViT-L-14" else 2)
    zero_shot = features(model, inputs)

    adapters = AdapterSet(model, AdapterConfig(drop_prob=0.0, momentum=0.0))
    if name == "ViT-B-16":  # the paper's 20.5 million
        assert adapters.num_parameters == 12 * 2 * 768**2 + 12 * 2 * 512**2 == 20_447_232
    layers = {site.tower: site.layer + 1 for site in adapters.sites}
    assert layers == ({"image": 24, "text": 12} if name == "ViT-L-14" else {"image": 12, "text": 12})

    optimizer = torch.optim.SGD(adapters.parameters(), lr=1.0)
    if name == "ViT-L-14":  # one pair alone has a loss of zero; any direction will do
        image = model.encode_image(inputs[0], normalize=True)
        (image @ model.encode_text(inputs[1], normalize=True).T).sum().backward()
        optimizer.step()
        adapters.accumulate()
    else:
        step(model, adapters, inputs, optimizer)
    adapters.eval()
    unmerged = features(model, inputs)
    delta = adapters.delta(backbone=backbone)
    adapters.remove()

    original = model.get_submodule(adapters.sites[0].linear).weight.clone()
    with delta.applied(model, 1.0):
        merged = features(model, inputs)
    assert (merged - unmerged).norm() < 1e-5 * unmerged.norm()
    assert (merged - zero_shot).norm() > 1e-3 * zero_shot.norm()
    assert torch.equal(model.get_submodule(adapters.sites[0].linear).weight, original)
