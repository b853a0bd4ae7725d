"""Where adapters sit: behind the attention and behind the MLP, in every layer of both towers.

The towers come from open_clip (CLIP, CustomTextCLIP, CoCa, without CoCa's decoder) or from timm (SigLIP and
its kin).
"""

import re
from dataclasses import dataclass

from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, Transformer, VisionTransformer
from torch import nn

TOWERS = ("image", "text")
LINEARS = {"attn": ("attn.out_proj", "attn.proj"), "mlp": ("mlp.c_proj", "mlp.fc2")}  # open_clip's, timm's


# open_clip's names and timm's of what comes before the first block of an image encoder: the convolutions or the patch
# embedding, class, register and position embeddings, and the first norm.
STEM = "conv1|class_embedding|positional_embedding|ln_pre|patch_embed|cls_token|reg_token|pos_embed|norm_pre"


def in_stem(weight: str) -> bool:
    """Whether a weight, by its name in the model, is of the image encoder's stem."""
    return re.match(rf"visual\.(trunk\.)?({STEM})\b", weight) is not None


@dataclass(frozen=True)
class Site:
    """A place for one adapter: behind the last linear layer of an attention or of an MLP.

    Attributes:
        name: "image.0.attn", "text.3.mlp".
        tower: "image" or "text".
        layer: counted from 0.
        kind: "attn" or "mlp".
        linear: dotted name of the nn.Linear just before the adapter, which merging changes.
        hooked: dotted name of the module whose output is adapted: the Linear itself, or the
            nn.MultiheadAttention around it, which uses its out_proj's weight without calling it.
    """

    name: str
    tower: str
    layer: int
    kind: str
    linear: str
    hooked: str


def find_sites(model: nn.Module, towers: tuple[str, ...] = TOWERS) -> list[Site]:
    """List the places for adapters, two a layer, tower by tower.

    Raises ValueError if a tower is no Transformer that open_clip or timm builds.
    """
    sites = []
    for tower in towers:
        prefix, tower_class = find_blocks(model, tower)
        for layer, block in enumerate(model.get_submodule(prefix).children()):
            parts = dict(block.named_modules())
            for kind, names in LINEARS.items():
                linear = next((name for name in names if isinstance(parts.get(name), nn.Linear)), None)
                if linear is None:
                    raise ValueError(
                        f"the {tower} tower ({tower_class}) has no {kind} with an output layer in its block "
                        f"{layer} ({type(block).__name__}): adapters need a Transformer of open_clip or timm"
                    )
                own, hooked = f"{prefix}.{layer}", kind if isinstance(parts[kind], nn.MultiheadAttention) else linear
                sites.append(Site(f"{tower}.{layer}.{kind}", tower, layer, kind, f"{own}.{linear}", f"{own}.{hooked}"))
    return sites


def find_blocks(model: nn.Module, tower: str) -> tuple[str, str]:
    """The dotted name of a tower's list of layers, and the tower's class for error messages."""
    if tower not in TOWERS:
        raise ValueError(f"{tower} is no tower: adapters sit in 'image', in 'text', or in both")
    # CustomTextCLIP and CoCa keep the text tower apart, a plain CLIP holds its parts.
    name = "visual" if tower == "image" else "text" if hasattr(model, "text") else "transformer"
    module = getattr(model, name, None)
    if isinstance(module, VisionTransformer | TextTransformer):
        return f"{name}.transformer.resblocks", type(module).__name__
    if isinstance(module, Transformer):
        return f"{name}.resblocks", type(module).__name__
    if isinstance(module, TimmModel):
        module = module.trunk
        if isinstance(getattr(module, "blocks", None), nn.ModuleList | nn.Sequential):
            return f"{name}.trunk.blocks", type(module).__name__
    raise ValueError(
        f"the {tower} tower is a {type(module).__name__}, which is no Transformer of open_clip or timm: "
        f"choose a model whose towers are, such as ViT-B-32, or leave that tower out"
    )
