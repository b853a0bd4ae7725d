"""Small models and inputs that the tests share."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn

from radapter_lite.adapter import AdapterSet
from radapter_lite.backbone import Backbone
from radapter_lite.losses import info_nce

TEXT = dict(context_length=8, vocab_size=50, width=48, heads=2, layers=2)
VISION = dict(image_size=32, patch_size=16, width=64, layers=3, head_width=32)
TIMM = dict(timm_model_name="vit_tiny_patch16_224", timm_pool="token", timm_proj="linear", image_size=224)


def make_clip(seed: int = 0, *, vision: dict | None = None, text: dict | None = None, kind: type = CLIP) -> nn.Module:
    """A CLIP of some 150,000 parameters, in eval mode, with weights far enough from their initial zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(32, (vision or VISION), TEXT | (text or {}))
        if hasattr(model.visual, "trunk") and hasattr(model.visual.trunk, "set_input_size"):  # a timm ViT
            model.visual.set_input_size(4 * model.visual.trunk.patch_embed.patch_size[0])
            model.visual.trunk.blocks = model.visual.trunk.blocks[:3]
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))  # biases too must be merged
    return model.eval()


def make_inputs(model: nn.Module, batch: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random images and token ids that fit the model, in the type of its weights."""
    generator = torch.Generator().manual_seed(seed)
    size = model.visual.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    length = getattr(model, "context_length", None) or model.text.context_length
    vocabulary = getattr(model, "vocab_size", None) or model.text.vocab_size
    images = torch.randn(batch, 3, height, width, generator=generator)
    tokens = torch.randint(1, vocabulary - 1, (batch, length), generator=generator)
    tokens[:, -1] = vocabulary - 1  # CLIP reads its text features at the largest id
    return images.to(next(model.parameters()).dtype), tokens


def features(model: nn.Module, inputs: tuple[Tensor, Tensor]) -> Tensor:
    """Unit image and text features, one under the other [2 batch, D]."""
    with torch.no_grad():
        image = model.encode_image(inputs[0], normalize=True)
        return torch.cat([image, model.encode_text(inputs[1], normalize=True)])


def fill(adapters: AdapterSet, scale: float = 0.02, seed: int = 0) -> None:
    """Give every adapter, live and averaged, something to do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in adapters.adapters.values():
            for parameter in adapter.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(scale * noise if adapter.rank is None else scale**0.5 * noise)
            adapter.average.copy_(adapter.matrix())


def step(
    model: nn.Module, adapters: AdapterSet, inputs: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer
) -> float:
    """One step of training with InfoNCE; returns the loss."""
    image = model.encode_image(inputs[0], normalize=True)
    text = model.encode_text(inputs[1], normalize=True)
    optimizer.zero_grad()
    loss = info_nce(image, text, 10.0)
    loss.backward()
    optimizer.step()
    adapters.accumulate()
    return loss.item()


def tokenize_words(texts: list[str]) -> Tensor:
    """Token ids that fit `TEXT`: one a word, then the largest."""
    ids = torch.zeros(len(texts), TEXT["context_length"], dtype=torch.long)
    for row, text in enumerate(texts):
        words = [1 + zlib.crc32(word.encode()) % (TEXT["vocab_size"] - 2) for word in re.findall(r"\w+", text)]
        tokens = [*words[: TEXT["context_length"] - 1], TEXT["vocab_size"] - 1]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids


def make_backbone(seed: int = 0) -> Backbone:
    """The small CLIP as a backbone."""
    transform = PreprocessCfg(size=VISION["image_size"], mean=(0.5,) * 3, std=(0.5,) * 3)
    return Backbone(make_clip(seed), tokenize_words, image_transform_v2(transform, is_train=False), "tiny", "random")


COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "dark-blue": (20, 20, 120)}


def make_folder(root: Path, domains: tuple[str, ...] = (), images: int = 8) -> Path:
    """Noisy images of three colours in class/image, or in domain/class/image."""
    rng = np.random.default_rng(0)
    for domain in domains or ("",):
        for name, colour in COLOURS.items():
            folder = root / domain / name
            folder.mkdir(parents=True)
            for number in range(images):
                pixels = np.clip(rng.normal(colour, 30, (36, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


MODELS = {
    "clip": lambda: make_clip(),
    "custom blocks": lambda: make_clip(vision=VISION | dict(qk_norm=True, scale_attn_inner=True, ls_init_value=0.5)),
    "apart": lambda: make_clip(kind=CustomTextCLIP, text=dict(no_causal_mask=True, pool_type="last")),
    "timm": lambda: make_clip(kind=CustomTextCLIP, vision=TIMM),
    "timm eva": lambda: make_clip(
        kind=CustomTextCLIP, vision=TIMM | dict(timm_model_name="eva02_tiny_patch14_224", timm_pool="token")
    ),
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """One thread, from before the first fixture of any scope: another number of threads rounds otherwise, and several
    wait for each other, ten times longer on small tensors and a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=list(MODELS))
def any_clip(request: pytest.FixtureRequest) -> nn.Module:
    """One small model for every layout of towers."""
    return MODELS[request.param]()


@pytest.fixture
def clip() -> nn.Module:
    return make_clip()


@pytest.fixture
def inputs(clip: nn.Module) -> tuple[Tensor, Tensor]:
    return make_inputs(clip)
