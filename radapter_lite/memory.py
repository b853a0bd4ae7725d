"""How much memory training takes, counted from shapes before it starts, in bytes a process.

In float32 and by AdamW, a trained number takes 4 bytes, its gradient 4, the optimizer 8. ZeRO divides the last among N
processes (stage 1), then the gradients too (2), then all weights (3); this package's FSDP the frozen backbone alone.
Averages and bases of adapters are never divided. Full fine-tuning is counted without the copy its delta is made from.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from radapter_lite.adapter import AdapterConfig, AdapterSet

SHARDINGS = ("none", "ZeRO-1", "ZeRO-2", "ZeRO-3", "FSDP")


def estimate(
    model: nn.Module, adapter: AdapterConfig | None, processes: int = 1, sharding: str = "none", batch: int = 0
) -> dict[str, float]:
    """Bytes of weights, gradients, optimizer and activations of one process, and their total.

    Args:
        model: an open_clip CLIP, which may be on the meta device; it is left as it was.
        adapter: R-Adapter's; None for full fine-tuning of both encoders.
        processes: N, among which is divided what `sharding`, one of `SHARDINGS`, says.
        batch: how many images, and texts, one process encodes in a step; activations are counted for these, from above.
    """
    model, adapters = copy.deepcopy(model).to("meta"), nn.Module()
    for each in model.parameters():
        each.requires_grad_(each.ndim > 0)  # the temperature stays fixed
    if adapter is not None:
        with torch.device("meta"):
            own = replace(adapter, drop_prob=0.0) if adapter.drop == "adapter" else adapter  # at most, none is
            adapters = AdapterSet(model, own).train()
        for site in adapters.sites if adapter.whitening else ():
            adapters[site].basis = torch.empty_like(adapters[site].average)
    weights = [*model.parameters(), *model.buffers(), *adapters.parameters()]
    trained, kept = sum(each.numel() for each in weights if each.requires_grad), [*adapters.buffers()]
    frozen = sum(each.numel() for each in weights if not each.requires_grad)
    stage, share = SHARDINGS.index(sharding), 1 / processes
    found = {
        "weights": 4 * (frozen * (share if stage >= 3 else 1) + trained * (share if stage == 3 else 1)),
        "gradients": 4 * trained * (share if stage in (2, 3) else 1),
        "optimizer": 8 * trained * (share if stage in (1, 2, 3) else 1),
        "activations": _activations(model, [*weights, *kept], batch) if batch else 0,
    }
    found["weights"] += sum(each.nbytes for each in kept)
    return found | {"total": sum(found.values())}


def _activations(clip: Any, weights: Iterable[Tensor], batch: int) -> int:
    """Bytes that a pass forward on the meta device keeps for the one backward, beside the weights.

    Attention keeps its whole matrix here, as fast kernels do not.
    """
    held, size = {}, clip.visual.image_size

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    pixels = torch.empty(batch, 3, *(size if isinstance(size, tuple) else (size, size)), device="meta")
    tokens = torch.empty(batch, clip.context_length, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        clip(pixels, tokens)
    for each in weights:
        held.pop(each.untyped_storage()._cdata, None)
    return sum(each.nbytes() for each in held.values())
