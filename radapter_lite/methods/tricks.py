"""Few-shot tricks that any method can train with: each changes what a batch's loss is, and nothing else.

    mixup         two images become one, x = λ x + (1 - λ) x': L = λ L(x, y) + (1 - λ) L(x, y'), λ ~ Beta(a, a)
    manifold      the same mixture, of what reaches a block of the image encoder that is drawn anew each step
    adversarial   also the loss where the embeddings of images and texts have moved to where it rises fastest (FGM)
    R-Drop        two passes in which other things are dropped, and a penalty on answering differently

`TrainingConfig` switches them. With several on, R-Drop compares two passes of one mixture, and the adversary attacks
it. Source: Zhang et al. 2018, Verma et al. 2019, Miyato et al. 2017, Wu et al. 2021; together in FSL++ (Meituan).
"""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite import processes
from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import TOWERS, changed_inputs, find_blocks
from radapter_lite.methods.objectives import BatchLoss
from radapter_lite.tasks import Batch
from radapter_lite.training import TrainingConfig

Pass = Callable[[], Tensor]  # the loss of a batch, computed anew -> scalar
DROPPED = 0.1  # of an image's embeddings, in R-Drop's second pass, where the method itself drops nothing


def with_tricks(loss: BatchLoss, backbone: Backbone, config: TrainingConfig, head: Tensor | None) -> BatchLoss:
    """The loss of a batch with the tricks that are on; where none is, the very same function.

    `backbone` has the model that the loss calls; `head` are zero-shot text features [T, D], which R-Drop needs.
    """
    if not (config.mixup or config.adversarial or config.r_drop):
        return loss
    if processes.count() > 1:
        raise ValueError("mixup, adversarial and r_drop need whole batches, which processes divide: set them to 0")

    def tricky(batch: Batch) -> Tensor:
        once: Pass = partial(loss, batch)
        if config.mixup:
            once = mixup(loss, batch, backbone.model, config.mixup, config.mixup_layer)
        if config.r_drop:
            assert head is not None
            once = partial(r_drop, once, backbone.model, head / backbone.temperature, config.r_drop)
        return adversarial(once, backbone.model, config.adversarial) if config.adversarial else once()

    return tricky


def mixup(loss: BatchLoss, batch: Batch, model: nn.Module, a: float, layer: str) -> Pass:
    """The loss of images mixed pairwise, at the "input" or before a "random" block; λ, pairs and block are drawn here.

    The second loss has the partners' texts. So image i matches text j there if its partner matches the text of j's.
    """
    share = torch.distributions.Beta(a, a).sample().item()
    order = torch.randperm(len(batch.images))
    blocks = image_blocks(model) if layer == "random" else []
    place = [blocks[int(torch.randint(len(blocks), ()))]] if blocks else []

    def mix(x: Tensor) -> Tensor:
        return share * x + (1 - share) * x[order]

    first = replace(batch, images=batch.images if blocks else mix(batch.images))
    second = replace(first, labels=batch.labels[order], positives=batch.positives[order][:, order])

    def once() -> Tensor:
        visual = model.get_submodule("visual")
        visual.forward = cache(visual.forward)  # both losses share the features of the very same images
        try:
            with changed_inputs(place, mix):
                return share * loss(first) + (1 - share) * loss(second)
        finally:
            del visual.forward  # the class's own again

    return once


def adversarial(once: Pass, model: nn.Module, size: float) -> Tensor:
    """The mean of a loss and of the same loss where the inputs of both encoders' first blocks have moved uphill.

    Each image and text moves along its own gradient, `size` times as far as its embeddings are long. The second pass
    draws the first's random numbers again. Raises ValueError if no embedding takes a gradient.
    """
    places = [model.get_submodule(find_blocks(model, tower)[0]) for tower in TOWERS]
    seen: list[tuple[Tensor, Tensor]] = []  # embeddings, and zeros added to them, in the order of the calls

    def look(x: Tensor) -> Tensor:
        seen.append((x.detach(), torch.zeros_like(x).requires_grad_()))
        return x + seen[-1][1]

    state = torch.get_rng_state()
    with changed_inputs(places, look):
        clean = once()
    zeros = [zero for _, zero in seen]
    uphill = torch.autograd.grad(clean, zeros, retain_graph=True, allow_unused=True) if zeros else ()
    if all(each is None for each in uphill):
        found = "adversarial has no direction to move the embeddings in"
        why = "nothing trained lies behind this method's encoders"
        raise ValueError(f"{found}: {why}; set it to 0, or choose a method that tunes an encoder, such as R-Adapter")
    steps = []
    for (x, zero), each in zip(seen, uphill, strict=True):
        gradient = zero.detach() if each is None else each  # [B, ...]
        length, steepness = (own.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1)) for own in (x, gradient))
        steps.append(size * length * gradient / steepness.clamp(min=torch.finfo(torch.float32).tiny))
    moves = iter(steps)
    torch.set_rng_state(state)
    with changed_inputs(places, lambda x: x + next(moves)):
        return (clean + once()) / 2


def r_drop(once: Pass, model: nn.Module, head: Tensor, weight: float) -> Tensor:
    """The mean loss of two passes, and `weight` times the `divergence` between their images' features.

    What the method drops differs between the passes. Where its image encoder draws no random number, the second pass
    drops a tenth of the embeddings. Raises ValueError if the features take no gradient.
    """
    visual, features, drawn = model.get_submodule("visual"), list[Tensor](), list[Tensor]()

    def look(_: nn.Module, __: Any, output: Any) -> None:
        drawn.append(torch.get_rng_state())
        features.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as hooks:
        hooks.callback(visual.register_forward_pre_hook(lambda *_: drawn.append(torch.get_rng_state())).remove)
        hooks.callback(visual.register_forward_hook(look).remove)
        first = once()
        drops, before = not torch.equal(drawn[0], drawn[1]), features[-1]
        with nullcontext() if drops else changed_inputs(image_blocks(model)[:1], partial(F.dropout, p=DROPPED)):
            second = once()
    if not before.requires_grad:
        found = "r_drop compares the images' features of two passes, and this method trains nothing that changes them"
        raise ValueError(f"{found}: set it to 0, or choose a method that tunes the image encoder, such as R-Adapter")
    return (first + second) / 2 + weight * divergence(before, features[-1], head)


def divergence(first: Tensor, second: Tensor, head: Tensor) -> Tensor:
    """The mean symmetric KL divergence of softmax(f · head), with unit f, for two sets of features [B, D]."""
    with torch.autocast(head.device.type, enabled=False):
        p, q = (F.log_softmax(F.normalize(each.float(), dim=-1) @ head.float().T, dim=1) for each in (first, second))
        return ((p.exp() - q.exp()) * (p - q)).sum(1).mean() / 2


def image_blocks(model: nn.Module) -> list[nn.Module]:
    """The image encoder's blocks. Raises ValueError where none are found."""
    return [model.get_submodule(name) for name in find_blocks(model, "image")]
