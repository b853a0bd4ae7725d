"""LoRA on the attention and MLP weights of both encoders, through peft: W + scale · B A, with B zero at the start.

Source: Hu et al. 2022 (LoRA, arXiv 2106.09685).
"""

import copy
import os
import re
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import TOWERS, find_sites
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta, require_untouched
from radapter_lite.methods.pairs import contrastive_loss
from radapter_lite.training import TrainingConfig, Tuned, train

ADAPTER = "default"  # what peft calls the only set of factors


@dataclass(frozen=True)
class LoRAConfig:
    """LoRA's settings.

    Attributes:
        training: of the loop.
        rank: of B A.
        scale: what B A is multiplied by; peft's lora_alpha / rank.
        towers: which encoders are tuned.
        temperature: of the contrastive loss, which is FLYP's.
    """

    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(epochs=30, batch_size=64, lr=3e-3, warmup_steps=20)
    )
    rank: int = 4
    scale: float = 1.0
    towers: tuple[str, ...] = TOWERS
    temperature: float = 0.01

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise ValueError(f"rank must be an integer of 1 or more, not {self.rank}")
        if not self.scale > 0:
            raise ValueError(f"scale must be above 0, not {self.scale}")


def lora(
    backbone: Backbone,
    images: ImageSet,
    config: LoRAConfig,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Tuned:
    """Train the factors on images and prompts of their classes; the delta holds them, the scale in B.

    peft works on a copy of the model, so that the backbone is never touched. Queries, keys and values share A
    where the model keeps their weights in one matrix. Raises what `train` and `lora_model` raise.
    """
    require_untouched(backbone.model)
    with torch.random.fork_rng(devices=[]):  # A begins at random
        torch.manual_seed(config.training.seed)
        model = lora_model(backbone.model, config)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    copied = replace(backbone, model=model)
    history = train(
        copied,
        images,
        contrastive_loss(copied, images.classes, config.temperature),
        trained,
        config.training,
        state={"lora": nn.ParameterList(trained)},
        settings=asdict(config),
        checkpoint=checkpoint,
        description="LoRA",
    )
    delta = Delta.from_low_rank(
        backbone.model.state_dict(),
        lora_factors(model),
        backbone=backbone,
        method="lora",
        settings=asdict(config),
    )
    return Tuned(delta, history, sum(parameter.numel() for parameter in trained))


def lora_model(model: nn.Module, config: LoRAConfig) -> nn.Module:
    """A copy of the model with peft's LoRA layers in it, all else frozen.

    Raises:
        ValueError: for a tower that is no Transformer, or whose attention keeps weights that peft cannot reach.
    """
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.scale * config.rank,  # type: ignore[arg-type]  # peft divides by the rank again
        # One pattern: peft takes names in a list for endings, and the text tower's are endings of the image tower's.
        target_modules="|".join(re.escape(name) for name in _targets(model, config.towers)),
    )
    model = inject_adapter_in_model(settings, copy.deepcopy(model), ADAPTER)
    for module in list(model.modules()):
        if isinstance(getattr(module, "base_layer", None), nn.MultiheadAttention):
            module.forward = partial(_attend, module)
    return model.eval()


def lora_factors(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """(scale · B [out, r], A [r, in]) by the name the weight has in the model without LoRA."""
    from peft.tuners.lora import LoraLayer

    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            weight = "in_proj_weight" if isinstance(module.base_layer, nn.MultiheadAttention) else "weight"
            b = module.lora_B[ADAPTER].get_parameter("weight")
            a = module.lora_A[ADAPTER].get_parameter("weight")
            factors[f"{name}.{weight}".replace(".base_layer", "")] = (module.scaling[ADAPTER] * b, a)
    return factors


def _attend(layer: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """The attention with W + ΔW in place of W: the forward pass of peft's MultiheadAttention, put right.

    peft 0.21.2 merges ΔW into the weights before each call and takes it out after. For out_proj it does so twice,
    once in MultiheadAttention.merge and again in the merge of out_proj's own layer, which that calls: the output
    is that of W + 2ΔW, the gradient that of W + ΔW, and so is a merged model wrong. Adding and subtracting at every
    call also leaves rounding in the frozen weights. So neither its forward nor its merge is used for attention:
    the sum is made here, once, and W is only read.
    """
    attention, out_proj = layer.base_layer, layer.base_layer.out_proj
    weights = {
        "in_proj_weight": attention.in_proj_weight + layer.get_delta_weight(ADAPTER),
        "out_proj.base_layer.weight": out_proj.base_layer.weight + out_proj.get_delta_weight(ADAPTER),
    }
    return functional_call(attention, weights, args, kwargs)


def _targets(model: nn.Module, towers: tuple[str, ...]) -> list[str]:
    """Dotted names of the attentions and linear layers that peft is to wrap."""
    names = []
    for site in find_sites(model, towers):
        place = site.linear.rpartition(f".{site.kind}.")[0] + f".{site.kind}"
        module = model.get_submodule(place)
        if isinstance(module, nn.MultiheadAttention):
            names.append(place)
            continue
        # These use a weight by F.linear and never call the layer that peft would wrap.
        if any(getattr(module, odd, None) is not None for odd in ("in_proj_weight", "q_bias")):
            raise ValueError(
                f"the {site.tower} tower's attention ({type(module).__module__}.{type(module).__name__}) uses its "
                f"query, key and value weights without calling a layer, so peft's LoRA has no effect on them: "
                f"leave that tower out, or choose another model"
            )
        names += [f"{place}.{name}" for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    return names
