"""Where adapters sit: behind the last linear layer or 1x1 convolution of every residual branch, in both towers.

A branch is an attention, an MLP, or the convolutions of a convolutional block. Behind a layer that mixes channels at
each place alone, before any batch norm or layer scale, merging is exact. A branch without one has no adapter (FastViT's
RepMixer), and neither has what is no residual branch: stems, downsampling, pooling heads, and CoCa's decoder. The
towers are open_clip's, timm's and, for texts, those of Transformers.

What is attached changes what modules of a frozen model take and give, and gives the model back.
"""

import copy
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

TOWERS = ("image", "text")
OTHERWISE = "choose one of open_clip's models, such as ViT-B-32, or leave that tower out"
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
STEM = r"stem|conv\d|bn\d|(class|positional)_embedding|ln_pre|patch_embed|(cls|reg)_token|pos_embed|norm_pre"

# a module's first input, its output [..., d] -> what takes the output's place [..., d]; d is last, also a convolution's
Change = Callable[[Tensor, Tensor], Tensor]
InputChange = Callable[[Tensor], Tensor]

# Models with something attached at this moment; merging into their weights would count it twice.
attached_models: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


def block_of(name: str) -> str | None:
    """The residual block of a module or weight in the model's numbers, "3", or "2.5" for 5 of stage 2; None if none."""
    found = BLOCK.search(f"{name}.")
    return ".".join(filter(None, found.groups())) if found else None


def in_stem(weight: str) -> bool:
    """Whether a weight, by its name in the model, is of the image encoder's stem."""
    return block_of(weight) is None and re.match(rf"visual\.(trunk\.)?({STEM})\b", weight) is not None


@dataclass(frozen=True)
class Site:
    """A place for one adapter: behind the last layer of an attention, of an MLP or of a convolutional block.

    Attributes:
        name: "image.0.attn", "text.3.mlp", "image.2.5.conv": the block's key for α, and "attn", "mlp" or "conv".
        tower, kind: the first and the last part of the name.
        layer: the block's number in its tower, counted from 0, through all stages.
        linear, block: dotted names of the nn.Linear or 1x1 nn.Conv2d that merging changes, and of its residual block.
        hooked: dotted name of the module whose output is adapted: that layer itself, or the nn.MultiheadAttention
            around it, which uses its out_proj's weight without calling it.
    """

    name: str
    tower: str
    layer: int
    kind: str
    linear: str
    hooked: str
    block: str


def find_sites(model: nn.Module, towers: tuple[str, ...] = TOWERS) -> list[Site]:
    """List the places for adapters, by tower. Raises ValueError for a tower whose blocks or branches are not known."""
    sites = []
    for tower, layer, name in ((own, *found) for own in towers for found in enumerate(find_blocks(model, own))):
        block = model.get_submodule(name)
        dense = [own for own, part in block.named_modules() if is_dense(part)]
        ends = {kind: own for kind, names in LAST.items() for own in dense if re.fullmatch(names, own)}
        missed = "attn" not in ends and any("attn" in own or "attention" in own.lower() for own in dense)
        if missed or not {"mlp", "conv"} & ends.keys():
            told = f"the {tower} tower has a branch that does not end in a layer that is known, in {name}"
            raise ValueError(f"{told} ({type(block).__name__}): {OTHERWISE}")
        for kind, own in ends.items():
            linear, around = f"{name}.{own}", f"{name}.{own}".rpartition(".")[0]
            hooked = around if isinstance(model.get_submodule(around), nn.MultiheadAttention) else linear
            sites.append(Site(f"{tower}.{block_of(name)}.{kind}", tower, layer, kind, linear, hooked, name))
    return sites


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
        kind = type(getattr(module, "trunk", module)).__name__
        raise ValueError(f"the {tower} tower is a {kind}, in which no residual blocks were found: {OTHERWISE}")
    return blocks


def first_layer(model: nn.Module) -> tuple[str, nn.Module]:
    """What pixels reach first in an image encoder, a convolution or a whole stem: its dotted name, and itself."""
    visual: Any = model.visual
    inside, tower = ("visual.trunk", visual.trunk) if hasattr(visual, "trunk") else ("visual", visual)
    name, module = next(tower.named_children())
    return f"{inside}.{name}", module


def is_dense(module: nn.Module) -> bool:
    """Whether a layer is linear over the channels of each place alone: nn.Linear, or a 1x1 convolution in one group."""
    is_conv = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return is_conv or isinstance(module, nn.Linear)


class Attachment(ExitStack):
    """Changes to a model's modules, until `close` or the end of a with block; its own weights are frozen meanwhile.

    Args:
        outputs: by a module's dotted name, the change of what it gives back.
        inputs: by a module's dotted name, the change of its first input.
    """

    def __init__(
        self, model: nn.Module, outputs: Mapping[str, Change], inputs: Mapping[str, InputChange] | None = None
    ) -> None:
        super().__init__()
        for name, change in outputs.items():
            hook = model.get_submodule(name).register_forward_hook(partial(_change_output, change))
            self.callback(hook.remove)
        for name, change_input in (inputs or {}).items():
            self.enter_context(changed_inputs([model.get_submodule(name)], change_input))
        for module in model.modules():
            if isinstance(module, nn.MultiheadAttention) and module.batch_first:
                self.callback(module.register_forward_pre_hook(_places_first).remove)
        self.enter_context(frozen(model))
        self.callback(attached_models.discard, model)
        attached_models.add(model)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No weight of the model takes a gradient inside; those that did before do so again after."""
    trainable = nn.ParameterList(p for p in model.parameters() if p.requires_grad).requires_grad_(False)
    try:
        yield
    finally:
        trainable.requires_grad_(True)


@contextmanager
def restored(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The model's weights may be trained inside, and are the original ones after; gives a copy of those."""
    before = copy.deepcopy(model.state_dict())
    try:
        yield before
    finally:
        model.load_state_dict(before)
        model.zero_grad()


@contextmanager
def changed_inputs(modules: Iterable[nn.Module], change: InputChange) -> Iterator[None]:
    """What reaches these modules is changed, inside the with block."""
    with ExitStack() as hooks:
        for m in modules:
            hook = m.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:]))
            hooks.callback(hook.remove)
        yield


@contextmanager
def skipped(module: nn.Module) -> Iterator[None]:
    """The module gives what it is given, inside the with block."""
    module.forward = lambda x, *_, **__: x
    try:
        yield
    finally:
        del module.forward


def _places_first(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """An attention's one input [B, L, D], in memory as it reads it, [L, B, D].

    Otherwise PyTorch takes a small product for each place in place of a large one, where weights take no gradient.
    """
    if len(inputs) < 3 or inputs[0].ndim < 3 or any(each is not inputs[0] for each in inputs[:3]):
        return inputs
    x = inputs[0]
    return (x.transpose(0, 1).contiguous().transpose(0, 1),) * 3 + inputs[3:]


def _change_output(change: Change, module: nn.Module, inputs: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # nn.MultiheadAttention: output, attention weights
        return (change(inputs[0], output[0]), *output[1:])
    if isinstance(module, nn.Conv2d):  # [B, d, H, W]
        return change(inputs[0].movedim(1, -1), output.movedim(1, -1)).movedim(-1, 1)
    return change(inputs[0], output)
