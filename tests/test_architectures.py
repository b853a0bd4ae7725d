"""Every model that open_clip lists: where its adapters sit, and that they merge there.

All are built on the meta device, where weights have shapes and no numbers; one of each family is built for real.
"""

import copy
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import open_clip
import pandas as pd
import pytest
import torch
from conftest import features, fill, make_clip, make_folder, make_inputs, step, tokenize_words
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import nn

from radapter_lite import load_tuned, tune
from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.alpha import keys_of, scales
from radapter_lite.alpha_curve import layer_profile
from radapter_lite.backbone import Backbone, load_clip
from radapter_lite.backbone.sites import block_of, first_layer, in_stem, skipped
from radapter_lite.data import ImageSet, load_images
from radapter_lite.delta import Delta
from radapter_lite.encoding import predict
from radapter_lite.methods.weights import LoRAConfig, lora_factors, lora_model
from radapter_lite.methods.whitening import inverse_root, whiten

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")

ROBERTA = dict(model_type="roberta", vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
ROBERTA |= dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
ROBERTA |= dict(bos_token_id=0, pad_token_id=1, eos_token_id=2)
XLM = ROBERTA | dict(model_type="xlm-roberta", vocab_size=250002)
LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
MT5 = dict(model_type="mt5", is_encoder_decoder=True, vocab_size=250112, feed_forward_proj="gated-gelu")
MT5 |= dict(d_model=768, d_kv=64, d_ff=2048, num_layers=12, num_heads=12, pad_token_id=0)
NLLB = dict(model_type="m2m_100", is_encoder_decoder=True, vocab_size=256206, max_position_embeddings=1024)
NLLB |= dict(d_model=1024, encoder_layers=12, encoder_attention_heads=16, encoder_ffn_dim=4096, decoder_layers=12)
HUB = {  # the text towers' configurations, in the sizes that the hub has them
    "roberta-base": ROBERTA,
    "xlm-roberta-base": XLM,
    "xlm-roberta-large": XLM | LARGE,
    "google/mt5-base": MT5,
    "google/mt5-xl": MT5 | dict(d_model=2048, d_ff=5120, num_layers=24, num_heads=32),
    "facebook/nllb-200-distilled-600M": NLLB,
    "facebook/nllb-200-distilled-1.3B": NLLB | dict(encoder_layers=24, decoder_layers=24, encoder_ffn_dim=8192),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict], Path]:
    """Lays a repository with a configuration into what is, for the test, the hub's cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(repository: str, config: dict) -> Path:
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        for name, text in {"refs/main": "1", "snapshots/1/config.json": json.dumps(config)}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder / "snapshots" / "1"

    return put


# --- all of them, by their shapes ---


def shapes(name: str) -> str:
    """What decides the shapes in a model's blocks, so that models which differ in the rest are built once."""
    config = open_clip.get_model_config(name)
    vision = {key: value for key, value in config["vision_cfg"].items() if key != "image_size"}
    vision["timm_model_name"] = re.sub(r"_\d+$", "", vision.get("timm_model_name", ""))
    keys = ("width", "heads", "layers", "mlp_ratio", "ls_init_value", "hf_model_name")
    text = {key: config["text_cfg"].get(key) for key in keys}
    return json.dumps([config["embed_dim"], vision, text, "multimodal_cfg" in config], sort_keys=True)


def kinds(model: nn.Module) -> dict[str, str]:
    """The family of each tower, as the table calls it."""
    trunk = getattr(model.visual, "trunk", model.visual)
    image = {"VisionTransformerRelPos": "VisionTransformer", "FastVit": "FastViT", "SwinTransformer": "Swin"}
    image |= {"Eva": "EVA, PE", "ModifiedResNet": "ResNet"}
    kind = image.get(type(trunk).__name__, type(trunk).__name__)
    if kind == "VisionTransformer":
        stages = any("stages" in name for name, _ in trunk.named_modules())
        kind = "ViTamin" if stages else "ViT" if trunk is model.visual else "ViT of timm, SigLIP"
    transformer = type(getattr(getattr(model, "text", None), "transformer", None)).__name__
    text = {"RobertaModel": "RoBERTa", "XLMRobertaModel": "RoBERTa", "MT5Stack": "mT5", "M2M100Encoder": "NLLB"}
    return {"image": kind, "text": text.get(transformer, "Transformer")}


def as_table(rows: list[dict]) -> str:
    """A row a family: how many configurations, behind which layers of a block, and how many adapters."""
    lines = ["| tower | configurations | adapters behind | how many |", "|---|---|---|---|"]
    for (tower, kind), group in pd.DataFrame(rows).groupby(["tower", "kind"], sort=False):
        behind = ", ".join(f"`{name}`" for name in dict.fromkeys(name for names in group["behind"] for name in names))
        counts = sorted({*group["adapters"]})
        many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        lines.append(f"| {tower}: {kind} | {group['models'].sum()} | {behind} | {many} |")
    return "\n".join(lines)


@pytest.mark.slow
def test_all_models_of_open_clip(cache: Callable[[str, dict], Path]) -> None:
    for repository, config in HUB.items():
        cache(repository, config)
    models = defaultdict(list)
    for name in sorted(open_clip.list_models(), key=lambda name: (not name.startswith("ViT-B"), name)):
        models[shapes(name)].append(name)
    assert sum(map(len, models.values())) == len(open_clip.list_models()) == 144
    rows = []
    for names in models.values():
        with torch.device("meta"):
            model = open_clip.create_model(names[0], device="meta", load_weights=False, pretrained_text=False).eval()
            adapters = AdapterSet(model).eval()
            calls = count_calls(model, adapters)
        sites, state = adapters.sites, model.state_dict()
        # On the meta device, the masks of Transformers are not to be had.
        hugging = kinds(model)["text"] != "Transformer"
        assert calls == {site.name: 1 for site in sites if not hugging or site.tower == "image"}, names
        Delta("adapter", {site.linear: adapters[site].average for site in sites})._check_fit(state)
        blocks = {tower: [*dict.fromkeys(s.block for s in sites if s.tower == tower)] for tower in ("image", "text")}
        keys = keys_of(f"{site.linear}.weight" for site in sites)
        assert len(keys) == 2 + len(blocks["image"]) + len(blocks["text"])  # a key for each block
        assert {site.name.rpartition(".")[0] for site in sites} == {*keys} - {"image", "text"}
        assert any(map(in_stem, state)) and not any(in_stem(name) and block_of(name) for name in state)
        for tower, kind in kinds(model).items():
            own = [site for site in sites if site.tower == tower]
            behind = [*dict.fromkeys(site.linear.removeprefix(f"{site.block}.") for site in own)]
            rows.append(dict(tower=tower, kind=kind, models=len(names), behind=behind, adapters=len(own)))
    rows.sort(key=lambda row: row["tower"])
    found = re.search("<!-- architectures -->\n(.*?)\n<!-- /architectures -->", README, re.DOTALL)
    assert found and found[1] == as_table(rows), f"put this into README.md:\n{as_table(rows)}"


def count_calls(model: nn.Module, adapters: AdapterSet) -> Counter:
    """How often each adapter is asked as one image and one text are encoded, as far as the meta device can."""
    calls: Counter = Counter()
    for site in adapters.sites:
        adapters[site].register_forward_hook(lambda *_, name=site.name: calls.update([name]))
    size = model.visual.image_size
    with torch.no_grad():
        model.encode_image(torch.zeros(1, 3, *(size if isinstance(size, tuple) else (size, size))))
        if kinds(model)["text"] == "Transformer":
            model.encode_text(torch.zeros(1, model.context_length, dtype=torch.long))
    return calls


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("visual.transformer.resblocks.11.mlp.c_proj.weight", "11"),
        ("visual.trunk.blocks.3.attn.proj", "3"),
        ("visual.trunk.stages.2.blocks.5.mlp.fc2", "2.5"),
        ("visual.trunk.stages.2.downsample.1.weight", None),
        ("visual.trunk.layers.2.blocks.5.attn.proj", "2.5"),
        ("visual.trunk.layers.2.downsample.reduction.weight", None),
        ("visual.trunk.patch_embed.backbone.stages.0.1.conv3_1x1", "0.1"),
        ("visual.trunk.patch_embed.backbone.pool.proj.weight", None),
        ("visual.layer3.4.conv3", "3.4"),
        ("visual.attnpool.c_proj.weight", None),
        ("text.transformer.encoder.layer.3.attention.output.dense", "3"),
        ("text.transformer.block.3.layer.1.DenseReluDense.wo", "3"),
        ("text.transformer.layers.3.fc2", "3"),
    ],
)
def test_a_block_has_the_number_of_its_stage_and_its_own(name: str, block: str | None) -> None:
    assert block_of(name) == block
    tower = "image" if name.startswith("visual") else "text"
    stem = "stem" if in_stem(name) else None
    assert keys_of([name]) == [tower, *(f"{tower}.{part}" for part in (block or stem,) if part)]


def test_keys_of_stages_come_in_order() -> None:
    names = [f"visual.trunk.patch_embed.backbone.stages.{stage}.conv3_1x1" for stage in ("0.1", "0.0", "1.10", "1.9")]
    names += [
        "visual.trunk.blocks.10.attn",
        "visual.trunk.blocks.9.attn",
        "visual.trunk.patch_embed.backbone.stem.conv1",
    ]
    keys = ["image", "image.stem", "image.0.0", "image.0.1", "image.1.9", "image.1.10", "image.9", "image.10"]
    assert keys_of(names) == keys
    scale = scales({"image": 0.2, "image.0.1": 0.7}, names)
    assert [scale(name) for name in names[:3]] == [0.7, 0.2, 0.2]


# --- one of each family, for real ---


@pytest.fixture
def shorter(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Gives open_clip another configuration: a model's own, with two layers in each Transformer that is open_clip's."""

    def add(name: str) -> str:
        config = open_clip.get_model_config(name)
        for part in ("vision_cfg", "text_cfg", "multimodal_cfg"):
            if isinstance(config.get(part, {}).get("layers"), int):
                config[part]["layers"] = 2
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, f"shorter-{name}", config)
        return f"shorter-{name}"

    return add


def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights more as training leaves them: batch norms know images, every layer lets differences through."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(module.in_features**-0.5 / module.weight.std())
        for name, parameter in model.named_parameters():
            if name.endswith(("bn3.weight", "gamma")):  # zero or tiny at the start
                parameter.fill_(0.3)
            if parameter.ndim == 1:  # biases too must be merged
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        if norms := [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
            for norm in norms:
                norm.train().momentum = None  # the mean over all that it sees
            model.encode_image(make_inputs(model, batch=4, seed=1)[0])
    return model.eval()


def check_whole_way(name: str, model: nn.Module, inputs: tuple, folder: Path) -> None:
    """Attach, train, merge, go back, export, and load in open_clip alone."""
    zero_shot, before = features(model, inputs), copy.deepcopy(model.state_dict())
    assert (zero_shot[0] - zero_shot[1]).norm() > 1e-2  # the images differ, and so do the texts
    assert (zero_shot[-1] - zero_shot[-2]).norm() > 1e-2
    adapters = AdapterSet(model, AdapterConfig(drop_prob=0.0, momentum=0.0)).train()
    optimizer = torch.optim.Adam(adapters.parameters(), lr=1e-3)
    for _ in range(3):
        step(model, adapters, inputs, optimizer)
    assert all(adapters[site].average.any() for site in adapters.sites)  # each has learned
    adapters.eval()
    unmerged = features(model, inputs)
    delta = adapters.delta()
    adapters.remove()

    with delta.applied(model, 1.0):
        merged = features(model, inputs)
    assert (merged - unmerged).norm() < 1e-5 * unmerged.norm()
    assert (merged - zero_shot).norm() > 1e-3 * zero_shot.norm()
    (first_name, first), begun = first_layer(model), []
    hook = first.register_forward_hook(lambda _, pixels, output: begun.append((pixels[0], output)))
    with delta.applied(model, 0.0):
        assert torch.equal(features(model, inputs), zero_shot)
        state = model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in before.items())
    hook.remove()

    [(pixels, output)] = begun
    assert torch.equal(pixels, inputs[0])  # images reach the first layer before all else, and once
    with delta.applied(model, 1.0), skipped(first), torch.no_grad():
        if not any(key.startswith(f"{first_name}.") for key in delta.touched(before)):  # ViTamin's holds blocks
            assert torch.equal(model.encode_image(output, normalize=True), merged[: len(output)])

    path = folder / "tuned.safetensors"
    delta.export(model, path)
    alone = open_clip.create_model(name, pretrained=str(path)).eval()
    path.unlink()
    torch.testing.assert_close(features(alone, inputs), merged, rtol=0, atol=1e-6)


REAL = {  # the smallest of each family
    "ViT": "ViT-S-32-alt",
    "CoCa": "coca_ViT-B-32",
    "SigLIP": "ViT-B-16-SigLIP",
    "PE": "PE-Core-T-16-384",
    "EVA": "EVA02-B-16",
    "ViTamin": "ViTamin-S",
    "ConvNeXt": "convnext_tiny",
    "ResNet": "RN50",
    "FastViT": "MobileCLIP2-S0",
    "Swin": "swin_base_patch4_window7_224",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL.values(), ids=REAL)
def test_one_of_each_family_trains_and_merges(name: str, shorter: Callable[[str], str], tmp_path: Path) -> None:
    name = shorter(name)
    model = enliven(load_clip(name, "random").model)
    check_whole_way(name, model, make_inputs(model, batch=2), tmp_path)


SMALL = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, vocab_size=60)
SMALL |= dict(d_model=64, d_kv=32, d_ff=128, num_layers=2, num_heads=2)
SMALL |= dict(encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=128, decoder_layers=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("roberta-ViT-B-32", "roberta-base"),
        ("xlm-roberta-base-ViT-B-32", "xlm-roberta-base"),
        ("mt5-base-ViT-B-32", "google/mt5-base"),
        ("nllb-clip-base", "facebook/nllb-200-distilled-600M"),
    ],
)
def test_text_towers_of_the_hub_work_from_its_cache(
    name: str, repository: str, cache: Callable[[str, dict], Path], shorter: Callable[[str], str], tmp_path: Path
) -> None:
    """Tokenizer and all, with a text tower that is smaller than the hub's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = cache(repository, HUB[repository] | SMALL)
    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "photo", "of", "red", "blue"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    special = dict(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", cls_token="<s>")
    special |= dict(sep_token="</s>", tokenizer_class="PreTrainedTokenizerFast")
    (folder / "tokenizer_config.json").write_text(json.dumps(special))

    backbone = load_clip(shorter(name), "random")
    tokens = backbone.tokenizer(["a photo of red", "a photo of a blue"])
    assert tokens[:, 4].tolist() == [7, 4]
    images = torch.randn(2, 3, *backbone.model.visual.image_size, generator=torch.Generator().manual_seed(0))
    check_whole_way(backbone.name, enliven(backbone.model), (images, tokens), tmp_path)


# --- a small ResNet, through all that stands on adapters ---


@pytest.fixture
def resnet() -> Backbone:
    vision = dict(layers=[2, 1, 1, 1], width=16, head_width=16, image_size=64)
    model = enliven(make_clip(vision=vision))
    transform = image_transform_v2(PreprocessCfg(size=64, mean=(0.5,) * 3, std=(0.5,) * 3), is_train=False)
    return Backbone(model, tokenize_words, transform, "small ResNet", "random")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return load_images(make_folder(tmp_path_factory.mktemp("resnet"))).few_shot(4)


def test_adapters_behind_convolutions_mix_and_whiten_their_channels(resnet: Backbone, photos: ImageSet) -> None:
    model, inside, behind = resnet.model, [], []
    bottleneck = model.visual.layer2[0]
    bottleneck.conv3.register_forward_hook(lambda _, __, output: inside.append(output))  # before the adapter's
    bottleneck.bn3.register_forward_pre_hook(lambda _, inputs: behind.append(inputs[0]))
    adapters = AdapterSet(model, AdapterConfig(whitening=0.01)).eval()
    images = [site for site in adapters.sites if site.tower == "image"]
    assert [site.name for site in images] == [f"image.{key}.conv" for key in ("1.0", "1.1", "2.0", "3.0", "4.0")]
    assert [site.layer for site in images] == [0, 1, 2, 3, 4]

    whiten(adapters, resnet, photos)
    x = inside[0].movedim(1, -1).flatten(0, 2)  # (places, channels)
    adapter = adapters[images[2]]
    torch.testing.assert_close(adapter.basis, inverse_root(x.T @ x / len(x), 0.01), rtol=1e-3, atol=1e-4)
    fill(adapters, 0.1)
    resnet.encode_images(torch.randn(2, 3, 64, 64))
    expected = inside[-1] + torch.einsum("bchw,cd->bdhw", inside[-1], adapter.average)
    torch.testing.assert_close(behind[-1], expected)


def test_lora_of_convolutions_merges(resnet: Backbone) -> None:
    model, inputs = lora_model(resnet.model, LoRAConfig(rank=2)), make_inputs(resnet.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    factors = lora_factors(model)
    assert {"visual.layer1.0.conv1.weight", "visual.layer4.0.conv3.weight"} < factors.keys()
    assert "visual.layer1.0.conv2.weight" not in factors and "visual.conv1.weight" not in factors  # 3x3
    delta = Delta.from_low_rank(resnet.model.state_dict(), factors)
    zero_shot = features(resnet.model, inputs)
    with delta.applied(resnet.model, 1.0):
        merged = features(resnet.model, inputs)
    torch.testing.assert_close(merged, features(model, inputs), rtol=0, atol=1e-5)
    assert (merged - zero_shot).norm() > 1e-2


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("R-Adapter", {}),
        ("R-Adapter, stem", {}),
        ("R-Adapter, rank 4", dict(drop="path", mixup=0.5, r_drop=0.1, adversarial=0.1)),
        ("LoRA", {}),
        ("FLYP", {}),
        ("Houlsby adapter", {}),
    ],
)
def test_methods_take_a_resnet(method: str, settings: dict, resnet: Backbone, photos: ImageSet, tmp_path: Path) -> None:
    settings = settings | dict(epochs=4) | (dict(momentum=0.5) if method.startswith("R-Adapter") else {})
    zero_shot = predict(resnet, photos)
    tuned = tune(resnet, photos, method, **settings)
    answer = tuned.similarities(resnet, photos)
    assert not torch.allclose(answer, zero_shot, atol=1e-4)
    tuned.save(tmp_path / "tuned")
    assert torch.equal(load_tuned(tmp_path / "tuned").similarities(resnet, photos), answer)
    if method != "Houlsby adapter":
        assert torch.equal(tuned.similarities(resnet, photos, 0.0), zero_shot)
        layers = layer_profile(resnet, tuned.delta, photos)["layer"].tolist()
        stem = ["stem"] if method in ("FLYP", "R-Adapter, stem") else []
        assert layers == [*stem, "1.0", "1.1", "2.0", "3.0", "4.0", 0, 1]


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ("AdaptFormer", r"MLPs of linear layers, and visual.layer1.0.conv3 is in none: leave that tower out"),
        ("prefix tuning", "the image tower is a ModifiedResNet, whose layers take no learned tokens"),
    ],
)
def test_methods_that_cannot_take_a_resnet_say_so(
    method: str, sentence: str, resnet: Backbone, photos: ImageSet
) -> None:
    with pytest.raises(ValueError, match=sentence):
        tune(resnet, photos, method, epochs=1)
    assert tune(resnet, photos, method, epochs=1, towers=("text",)).tensors
