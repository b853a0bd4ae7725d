"""Weights that are tuned as they are: all of them, by FLYP's loss or the image encoder's alone, or few, as LoRA.

Fine-tuning's delta at α < 1 is WiSE-FT. LoRA is on linear layers and 1x1 convolutions of both encoders' blocks, through
peft: W + scale · B A, B = 0 at first.

Source: Goyal et al. 2023 (FLYP, arXiv 2212.00638); Wortsman et al. 2022 (WiSE-FT, arXiv 2109.01903); Hu et al. 2022
(LoRA, arXiv 2106.09685).
"""

import copy
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import register_parametrization

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import TOWERS, find_sites, is_dense, restored
from radapter_lite.delta import Delta
from radapter_lite.encoding import text_features
from radapter_lite.methods.objectives import contrastive_loss, head_loss
from radapter_lite.methods.r_adapter import Stem
from radapter_lite.methods.registry import ADAPTERS_ELSEWHERE, WEIGHTS_ELSEWHERE, LossConfig, Train, register
from radapter_lite.methods.whitening import inverse_root, second_moments
from radapter_lite.seeding import seeded
from radapter_lite.settings import Above0, Count
from radapter_lite.tasks import Task
from radapter_lite.tuned import Tuned

ADAPTER = "default"  # what peft calls the only set of factors


@register("FLYP", LossConfig(), grid=(5e-4, 1e-3, 2e-3), elsewhere=WEIGHTS_ELSEWHERE)
def flyp(backbone: Backbone, task: Task, config: LossConfig, train: Train) -> Tuned:
    """Train every weight of both encoders on images and their texts; the delta is the difference.

    Pairs of one class are positives of each other here. The published loss takes each image's own prompt as its only
    positive and pushes it away from the prompts of its own class that stand beside other images; with few classes most
    batches hold such pairs, and a loss that contradicts itself would measure the size of the batch rather than the
    method. Batch statistics stay frozen. Raises what `train` raises.
    """
    model = backbone.model
    trained = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("logit_")]
    with restored(model) as before:
        history = train(contrastive_loss(backbone, task, config.temperature), trained, model=model)
        return Tuned(Delta.from_difference(before, model), history, sum(p.numel() for p in trained))


@register("fine-tuning", LossConfig(), grid=(5e-4, 1e-3, 2e-3), elsewhere=WEIGHTS_ELSEWHERE)
def fine_tuning(backbone: Backbone, task: Task, config: LossConfig, train: Train) -> Tuned:
    """Train every weight of the image encoder with cross-entropy; the delta is the difference.

    The classifier is the text features of the class names, as zero-shot CLIP has them, and stays so: the text encoder
    is not trained. Batch statistics stay frozen. Raises what `train` raises.
    """
    visual = backbone.model.get_submodule("visual")
    trained = [parameter for parameter in visual.parameters() if parameter.requires_grad]
    head = text_features(backbone, task.texts(backbone))  # (C, D)
    loss = head_loss(backbone, lambda features: features @ head.T / config.temperature)
    with restored(backbone.model) as before:
        history = train(loss, trained, visual=visual)
        return Tuned(Delta.from_difference(before, backbone.model), history, sum(p.numel() for p in trained))


@dataclass(frozen=True)
class LoRAConfig(LossConfig):
    """LoRA's settings; its contrastive loss is FLYP's.

    Attributes:
        rank: of B A.
        scale: what B A is multiplied by; peft's lora_alpha / rank.
        towers: which encoders are tuned.
        stem_lr, whitening: as R-Adapter's: the rate of the image encoder's stem, trained along, and the damping λ of
            A = A' P, whose layer's inputs P makes equally loud. None for LoRA as it is.
    """

    rank: Count = 4
    scale: Above0 = 1.0
    towers: tuple[str, ...] = TOWERS
    stem_lr: Above0 | None = None
    whitening: Above0 | None = None


@register("LoRA", LoRAConfig(), grid=(5e-3, 1e-2, 2e-2), elsewhere=ADAPTERS_ELSEWHERE)
def lora(backbone: Backbone, task: Task, config: LoRAConfig, train: Train) -> Tuned:
    """Train the factors on images and their texts; the delta holds them, the scale in B.

    peft works on a copy of the model. Queries, keys and values share A where the model keeps their weights in one
    matrix. Raises what `train` and `lora_model` raise.
    """
    with seeded(config.training.seed):  # A begins at random
        model = lora_model(backbone.model, config)
    if config.whitening is not None:  # the inputs of every layer that is called; an attention's last is not
        layers = _layers(model)
        inputs = {name: backbone.model.get_submodule(name) for name in layers}
        for name, moment in second_moments(inputs, backbone, task, config.training.seed).items():
            basis = _Whitened(inverse_root(moment, config.whitening))
            register_parametrization(layers[name].lora_A[ADAPTER], "weight", basis)
    state: dict[str, nn.Module] = {"lora": nn.ParameterList(p for p in model.parameters() if p.requires_grad)}
    trained: list[Any] = [{"params": [*state["lora"].parameters()]}]
    stem = None
    if config.stem_lr is not None:
        stem = state["stem"] = Stem(model, momentum=0.0)
        trained.append({"params": [*stem.weights], "scale": config.stem_lr / config.training.lr})
    copied = replace(backbone, model=model)
    loss, train = contrastive_loss(copied, task, config.temperature), replace(train, backbone=copied)
    history = train(loss, trained, **state)
    if stem is not None:
        stem.accumulate()  # without momentum: the change as training left it
    delta = Delta.from_low_rank(backbone.model.state_dict(), lora_factors(model), stem.changes() if stem else None)
    return Tuned(delta, history, sum(p.numel() for group in trained for p in group["params"]))


def lora_model(model: nn.Module, config: LoRAConfig) -> nn.Module:
    """A copy of the model with peft's LoRA layers in it, all else frozen.

    Raises ValueError for a tower whose blocks are not known, or whose attention keeps weights that peft cannot reach.
    """
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.scale * config.rank,  # type: ignore[arg-type]  # peft divides by the rank again
        # One pattern: peft takes names in a list for endings, and the text tower's are endings of the image tower's.
        target_modules="|".join(re.escape(name) for name in _targets(model, config.towers)),
    )
    # On the CPU, whose random numbers the seed decides.
    copied = inject_adapter_in_model(settings, copy.deepcopy(model).cpu(), ADAPTER)
    for module in list(copied.modules()):
        if isinstance(getattr(module, "base_layer", None), nn.MultiheadAttention):
            module.forward = partial(_attend, module)
    return copied.to(next(model.parameters()).device).eval()


def lora_factors(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """(scale · B [out, r], A [r, in]) by the name the weight has in the model without LoRA."""
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in _layers(model).items():
        weight = "in_proj_weight" if isinstance(layer.base_layer, nn.MultiheadAttention) else "weight"
        b, a = (part[ADAPTER].weight.flatten(1) for part in (layer.lora_B, layer.lora_A))  # a convolution's: 4-d
        factors[f"{name}.{weight}"] = (layer.scaling[ADAPTER] * b, a)
    return factors


def _layers(model: nn.Module) -> dict[str, Any]:
    """peft's layers, by the names that theirs have in the model without LoRA."""
    from peft.tuners.lora import LoraLayer

    return {name.replace(".base_layer", ""): m for name, m in model.named_modules() if isinstance(m, LoraLayer)}


class _Whitened(nn.Module):
    """A = A' P, with A' [r, in] trained and P [in, in] fixed."""

    basis: Tensor

    def __init__(self, basis: Tensor) -> None:
        super().__init__()
        self.register_buffer("basis", basis)

    def forward(self, a: Tensor) -> Tensor:
        return (a.flatten(1) @ self.basis).view_as(a)


def _attend(layer: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """The attention with W + ΔW in place of W: the forward pass of peft's MultiheadAttention, put right.

    peft 0.21.2 merges ΔW into the weights before each call and takes it out after, for out_proj twice: the output is
    that of W + 2ΔW, the gradient that of W + ΔW. It also leaves rounding in the frozen weights. So neither its forward
    nor its merge is used for attention: the sum is made here, once, and W is only read.
    """
    attention, out_proj = layer.base_layer, layer.base_layer.out_proj
    weights = {
        "in_proj_weight": attention.in_proj_weight + layer.get_delta_weight(ADAPTER),
        "out_proj.base_layer.weight": out_proj.base_layer.weight + out_proj.get_delta_weight(ADAPTER),
    }
    return functional_call(attention, weights, args, kwargs)


def _targets(model: nn.Module, towers: tuple[str, ...]) -> list[str]:
    """Dotted names of the attentions, linear layers and 1x1 convolutions in blocks, which peft is to wrap."""
    names = []
    for site in {site.block: site for site in find_sites(model, towers)}.values():
        parts = {f"{site.block}.{name}": part for name, part in model.get_submodule(site.block).named_modules()}
        own = [name for name, part in parts.items() if isinstance(part, nn.MultiheadAttention)]
        names += own + [name for name, p in parts.items() if is_dense(p) and name.rpartition(".")[0] not in own]
        # These use a weight by F.linear and never call the layer that peft would wrap.
        for part in (part for name, part in parts.items() if name not in own):
            if any(getattr(part, odd, None) is not None for odd in ("in_proj_weight", "q_bias")):
                found = f"the {site.tower} tower's attention ({type(part).__module__}.{type(part).__name__}) uses its"
                why = "query, key and value weights without calling a layer, so peft's LoRA has no effect on them"
                raise ValueError(f"{found} {why}: leave that tower out, or choose another model")
    return names
