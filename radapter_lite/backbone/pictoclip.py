"""PictoCLIP, the embedded backbone: an open_clip CLIP of 6 million parameters with a convolutional stem.

Its strided convolutions learn several times faster at this size than a patch embedding (MODEL_CARD.md).
"""

import json
from collections.abc import Callable

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import load_file
from torch import Tensor, nn

from radapter_lite.assets import ASSETS

CONFIG = ASSETS / "pictoclip.json"
WEIGHTS = ASSETS / "pictoclip.safetensors"
VOCABULARY = ASSETS / "pictoclip_bpe.txt.gz"
# What stood around the names of pictograms in pretraining.
PROMPTS = ("{}", "an icon of a {}", "a picture of a {}", "a drawing of {}", "a symbol of {}", "the {} icon")


def conv_stem(channels: list[int], width: int) -> nn.Sequential:
    """Strided convolutions in place of the patch embedding: (B, 3, 48, 48) -> (B, width, 4, 4)."""
    layers: list[nn.Module] = []
    c_in, kernel, stride = 3, 7, 3
    for c_out in channels:
        layers += [nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(c_out), nn.GELU()]
        layers += [nn.Conv2d(c_out, c_out, 3, 1, 1, groups=c_out, bias=False), nn.BatchNorm2d(c_out), nn.GELU()]
        c_in, kernel, stride = c_out, 3, 2
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], width, 1))


def build(config: dict) -> CLIP:
    """An untrained model of a config with open_clip's keys and `stem_channels`."""
    model = CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])
    model.visual.conv1 = conv_stem(config["stem_channels"], config["vision_cfg"]["width"])
    return model


def untrained(seed: int) -> CLIP:
    """An untrained PictoCLIP whose weights are drawn with `seed`."""
    torch.manual_seed(seed)
    return build(load_config())


def load_config() -> dict:
    return json.loads(CONFIG.read_text())


def load_tokenizer(config: dict) -> SimpleTokenizer:
    """CLIP's byte-pair tokenizer with the first merges of CLIP's own list."""
    return SimpleTokenizer(bpe_path=str(VOCABULARY), context_length=config["text_cfg"]["context_length"])


def load_pictoclip(pretrained: str = "picto") -> tuple[CLIP, Callable[[list[str]], Tensor], Callable]:
    """The model in evaluation mode, with the weights "picto" or "random", its tokenizer and its image transform."""
    config = load_config()
    model = build(config)
    if pretrained == "picto":
        model.load_state_dict(load_file(WEIGHTS))  # which are in half precision, and become float32
    preprocess = image_transform_v2(PreprocessCfg(**config["preprocess_cfg"]), is_train=False)
    return model.eval(), load_tokenizer(config), preprocess
