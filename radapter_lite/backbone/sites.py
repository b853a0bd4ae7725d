"""Where adapters sit: behind the last linear layer or 1x1 convolution of every residual branch, in both towers.

A branch is an attention, an MLP, or the convolutions of a convolutional block. Behind a layer that mixes the channels
of each place alone, before any batch norm or layer scale, merging is exact. A branch without one has no adapter (the
depthwise convolutions of FastViT's RepMixer), and neither has what is no residual branch: stems, downsampling, pooling
heads, and CoCa's decoder. The towers are open_clip's, timm's and, for texts, those of Transformers.
"""

import re
from dataclasses import dataclass

from torch import nn

TOWERS = ("image", "text")

# A residual block's place in its tower: its number, behind that of its stage where there are stages.
BLOCK = re.compile(
    r"(?:stages\.|layers\.|layer)(\d+)\.(?:blocks\.)?(\d+)\."  # timm's stages, Swin's and ResNet's
    r"|(?:blocks|transformer\.(?:encoder\.)?(?:layers?|block))\.(\d+)\."  # open_clip's, timm's, Transformers'
)
# The last layer of a branch, by its name inside a block.
LAST = {
    "attn": r"(self_)?attn\.out_proj|(attn|token_mixer)\.proj|attention\.output\.dense|layer\.0\.SelfAttention\.o",
    "mlp": r"mlp\.(c_proj|fc2|w2)|fc2|output\.dense|layer\.1\.DenseReluDense\.wo",
    "conv": r"conv3(_1x1)?",
}
# open_clip's names and timm's of what comes before the first block of an image encoder: the convolutions or the patch
# embedding, class, register and position embeddings, and the first norm.
STEM = (
    r"stem|conv\d|bn\d|class_embedding|positional_embedding|ln_pre|patch_embed|cls_token|reg_token|pos_embed|norm_pre"
)


def block_of(name: str) -> str | None:
    """The residual block that a module or weight lies in, "3", or "2.5" for number 5 of stage 2; None outside of any.

    Numbers are those of the model's own names: most count from 0, ResNet's stages from 1.
    """
    found = BLOCK.search(f"{name}.")
    return ".".join(filter(None, found.groups())) if found else None


def in_stem(weight: str) -> bool:
    """Whether a weight, by its name in the model, is of the image encoder's stem."""
    return block_of(weight) is None and re.match(rf"visual\.(trunk\.)?({STEM})\b", weight) is not None


@dataclass(frozen=True)
class Site:
    """A place for one adapter: behind the last layer of an attention, of an MLP or of a convolutional block.

    Attributes:
        name: "image.0.attn", "text.3.mlp", "image.2.5.conv"; in front of the kind stands the block's key for α.
        tower: "image" or "text".
        layer: the block's number in its tower, counted from 0, through all stages.
        kind: "attn", "mlp" or "conv".
        linear: dotted name of the nn.Linear or 1x1 nn.Conv2d just before the adapter, which merging changes.
        hooked: dotted name of the module whose output is adapted: that layer itself, or the
            nn.MultiheadAttention around it, which uses its out_proj's weight without calling it.
        block: dotted name of the residual block.
    """

    name: str
    tower: str
    layer: int
    kind: str
    linear: str
    hooked: str
    block: str


def find_sites(model: nn.Module, towers: tuple[str, ...] = TOWERS) -> list[Site]:
    """List the places for adapters, one a residual branch, tower by tower.

    Raises ValueError for a tower without residual blocks, or with one whose branches are not known.
    """
    return [
        Site(f"{tower}.{block_of(block)}.{kind}", tower, layer, kind, linear, _hooked(model, linear), block)
        for tower in towers
        for layer, block in enumerate(find_blocks(model, tower))
        for kind, linear in _branches(model.get_submodule(block), block, tower)
    ]


def find_blocks(model: nn.Module, tower: str) -> list[str]:
    """The dotted names of a tower's residual blocks, from the input on. Raises ValueError where there are none."""
    if tower not in TOWERS:
        raise ValueError(f"{tower} is no tower: adapters sit in 'image', in 'text', or in both")
    # CustomTextCLIP and CoCa keep the text tower apart, a plain CLIP holds its parts.
    name = "visual" if tower == "image" else "text" if hasattr(model, "text") else "transformer"
    module = getattr(model, name, None)
    inside = [f"{name}.{own}." for own, _ in module.named_modules()] if isinstance(module, nn.Module) else []
    blocks = [own[:-1] for own in inside if (found := BLOCK.search(own)) and found.end() == len(own)]
    if not blocks:
        raise ValueError(
            f"the {tower} tower is a {type(getattr(module, 'trunk', module)).__name__}, in which no residual blocks "
            f"were found: choose one of open_clip's models, such as ViT-B-32, or leave that tower out"
        )
    return blocks


def is_dense(module: nn.Module) -> bool:
    """Whether a layer is linear over the channels of each place alone: nn.Linear, or a 1x1 convolution in one group."""
    is_conv = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return is_conv or isinstance(module, nn.Linear)


def _branches(block: nn.Module, name: str, tower: str) -> list[tuple[str, str]]:
    """The kind and last layer of each branch of a block."""
    dense = [own for own, part in block.named_modules() if is_dense(part)]
    found = {kind: own for kind, names in LAST.items() for own in dense if re.fullmatch(names, own)}
    missed = "attn" not in found and any("attn" in own or "attention" in own.lower() for own in dense)
    if missed or not {"mlp", "conv"} & found.keys():
        raise ValueError(
            f"the {tower} tower has a branch that does not end in a layer that is known, in {name} "
            f"({type(block).__name__}): choose one of open_clip's models, such as ViT-B-32, or leave that tower out"
        )
    return [(kind, f"{name}.{own}") for kind, own in found.items()]


def _hooked(model: nn.Module, linear: str) -> str:
    around = linear.rpartition(".")[0]
    return around if isinstance(model.get_submodule(around), nn.MultiheadAttention) else linear
