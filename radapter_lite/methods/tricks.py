"""Few-shot tricks that any method can train with: each changes what a batch's loss is, and nothing else.

    mixup         two images are one: L = λ L(x, y) + (1 - λ) L(x, y'), x = λ x + (1 - λ) x', λ ~ Beta(a, a)
    manifold      the same mixture, of what reaches a block of the image encoder that is drawn anew each step
    adversarial   also the loss where the embeddings of images and texts have moved to where it rises fastest
    R-Drop        two passes with other things dropped, and a penalty on answering otherwise

Switched by `TrainingConfig`; an option that is off draws no random number. Several may be on: R-Drop compares two
passes of the same mixture, and the adversary attacks all of it. This is the toolbox of FSL++ (Meituan, 2022).

Source: Zhang et al. 2018 (mixup), Verma et al. 2019 (manifold mixup), Miyato et al. 2017 (FGM), Wu et al. 2021
    (R-Drop).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import TOWERS, find_blocks
from radapter_lite.tasks import Batch
from radapter_lite.training import TrainingConfig

BatchLoss = Callable[[Batch], Tensor]  # -> scalar
Pass = Callable[[], Tensor]  # a batch's loss, the forward pass through the encoders included -> scalar
DROPPED = 0.1  # of an image's embeddings, in R-Drop's second pass, for a method that drops nothing itself


def with_tricks(loss: BatchLoss, backbone: Backbone, config: TrainingConfig, head: Tensor | None = None) -> BatchLoss:
    """The loss of a batch with the tricks that are on; the very same function where none is.

    Args:
        backbone: whose model the loss calls.
        head: zero-shot text features [T, D], which R-Drop needs.
    """
    if not (config.mixup or config.adversarial or config.r_drop):
        return loss
    model = backbone.model

    def tricky(batch: Batch) -> Tensor:
        once: Pass = partial(loss, batch)
        if config.mixup:
            once = mixup(loss, batch, model, config.mixup, config.mixup_layer)
        if config.r_drop:
            assert head is not None
            once = partial(r_drop, once, model, head / backbone.temperature, config.r_drop)
        return adversarial(once, model, config.adversarial) if config.adversarial else once()

    return tricky


def mixup(loss: BatchLoss, batch: Batch, model: nn.Module, a: float, layer: str = "input") -> Pass:
    """The loss of a batch whose images are mixed pairwise, at the "input" or before a "random" image block.

    The share λ ~ Beta(a, a), the partners and the block are drawn here, so that every pass sees the same mixture.
    """
    share, order = torch.distributions.Beta(a, a).sample().item(), torch.randperm(len(batch.images))
    mix = partial(mixed, share=share, order=order.to(batch.images.device))
    blocks = image_blocks(model) if layer == "random" else []
    place = [blocks[int(torch.randint(len(blocks), ()))]] if blocks else []
    images = batch.images if blocks else mix(batch.images)
    # Image i stands for its partner: its text is the partner's, and so is what matches it.
    first, second = replace(batch, images=images), replace(paired(batch, order), images=images)

    def once() -> Tensor:
        with changed_inputs(place, mix), encoded_once(model.get_submodule("visual")):
            return share * loss(first) + (1 - share) * loss(second)

    return once


def mixed(x: Tensor, share: float, order: Tensor) -> Tensor:
    """λ x + (1 - λ) x' of what stands for images [B, ...], x' that of their partners."""
    return share * x + (1 - share) * x[order]


def paired(batch: Batch, order: Tensor) -> Batch:
    """The batch of the partners: image, text and matches of `order`'s i-th in place i."""
    order = order.to(batch.labels.device)
    return Batch(batch.images[order], batch.labels[order], batch.positives[order][:, order])


def adversarial(once: Pass, model: nn.Module, size: float) -> Tensor:
    """The mean of a loss and of the same loss where the inputs of both encoders' first blocks have moved uphill.

    The step of an image or a text is along its gradient, `size` times as long as its embeddings [L, D] are. The second
    pass draws the random numbers of the first again.

    Raises:
        ValueError: if no embedding takes a gradient.
    """
    places = [next(model.get_submodule(find_blocks(model, tower)[0]).children()) for tower in TOWERS]
    seen: list[tuple[Tensor, Tensor]] = []  # embeddings, and zeros added to them, in the order of the calls

    def look(x: Tensor) -> Tensor:
        seen.append((x.detach(), torch.zeros_like(x).requires_grad_()))
        return x + seen[-1][1]

    state = torch.get_rng_state()
    with changed_inputs(places, look):
        clean = once()
    zeros = [zero for _, zero in seen]
    gradients = torch.autograd.grad(clean, zeros, retain_graph=True, allow_unused=True) if zeros else ()
    if all(gradient is None for gradient in gradients):
        raise ValueError(
            "adversarial has no direction to move the embeddings in: nothing trained lies behind this method's "
            "encoders; set it to 0, or choose a method that tunes an encoder, such as R-Adapter"
        )
    steps = iter([uphill(x, g, size) for (x, _), g in zip(seen, gradients, strict=True)])
    torch.set_rng_state(state)
    with changed_inputs(places, lambda x: x + next(steps)):
        return (clean + once()) / 2


def uphill(x: Tensor, gradient: Tensor | None, size: float) -> Tensor:
    """For each of [B, L, D], a step along its gradient that is `size` times as long as it; 0 without a gradient."""
    if gradient is None:
        return torch.zeros_like(x)
    length, steepness = (each.flatten(1).norm(dim=1).view(-1, 1, 1) for each in (x, gradient))
    return size * length * gradient / steepness.clamp(min=torch.finfo(torch.float32).tiny)


def r_drop(once: Pass, model: nn.Module, head: Tensor, weight: float) -> Tensor:
    """The mean loss of two passes, and `weight` times the divergence between what they make of the images.

    That is the symmetric KL divergence of softmax(f · head) with each pass's image features f. The passes differ in
    what the method drops; where its image encoder draws no random number, the second drops a tenth of the embeddings.

    Args:
        head: text features, divided by the temperature [T, D].

    Raises:
        ValueError: if the image features take no gradient.
    """
    visual = model.get_submodule("visual")
    found: list[Tensor] = []
    drew: list[Any] = []
    before = visual.register_forward_pre_hook(lambda *_: drew.append(torch.get_rng_state()))

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        drew[-1] = not torch.equal(drew[-1], torch.get_rng_state())
        found.append(output[0] if isinstance(output, tuple) else output)

    after = visual.register_forward_hook(look)
    try:
        first = once()
        first_features, drops = found[-1], any(drew)
        with nullcontext() if drops else changed_inputs(image_blocks(model)[:1], partial(F.dropout, p=DROPPED)):
            second = once()
    finally:
        before.remove()
        after.remove()
    if not first_features.requires_grad:
        raise ValueError(
            "r_drop compares image features of two passes, and this method trains nothing that changes them: set it "
            "to 0, or choose a method that tunes the image encoder, such as R-Adapter"
        )
    with torch.autocast(head.device.type, enabled=False):
        return (first + second) / 2 + weight * divergence(first_features, found[-1], head)


def divergence(first: Tensor, second: Tensor, head: Tensor) -> Tensor:
    """The symmetric KL divergence, a mean over images, of softmax(f · head) for two sets of features [B, D]."""
    p, q = (F.log_softmax(F.normalize(each.float(), dim=-1) @ head.float().T, dim=1) for each in (first, second))
    return ((p.exp() - q.exp()) * (p - q)).sum(1).mean() / 2


def image_blocks(model: nn.Module) -> list[nn.Module]:
    """The image encoder's blocks. Raises ValueError for one that is no Transformer."""
    return list(model.get_submodule(find_blocks(model, "image")[0]).children())


@contextmanager
def changed_inputs(modules: Iterable[nn.Module], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """What reaches these modules is changed, for the length of a with block."""
    handles = [m.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:])) for m in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def encoded_once(visual: nn.Module) -> Iterator[None]:
    """Inside, images that the encoder is given again are not encoded again: both losses of a mixture share features."""
    forward = visual.forward
    kept: dict[Tensor, Any] = {}

    def remembering(images: Tensor, *rest: Any, **options: Any) -> Any:
        if images not in kept:
            kept[images] = forward(images, *rest, **options)
        return kept[images]

    visual.forward = remembering
    try:
        yield
    finally:
        del visual.forward  # the class's own again
