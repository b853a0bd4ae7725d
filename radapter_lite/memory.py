"""How much memory training takes, counted from shapes before it starts, in bytes a process.

In float32 and by AdamW, each number that is trained takes 4 bytes, its gradient 4, and the optimizer 8. ZeRO divides
the last among N processes (stage 1), then the gradients too (2), then all weights (3). The FSDP of this package divides
the frozen backbone alone. Running averages and bases of adapters are never divided. Full fine-tuning is counted without
the copy of the original weights from which its delta is made.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from radapter_lite.adapter import AdapterConfig, AdapterSet, find_sites

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
    frozen, kept = sum(each.numel() for each in [*model.parameters(), *model.buffers()]), 0
    if adapter is None:
        trained = sum(each.numel() for each in model.parameters() if each.ndim)  # the temperature stays fixed
        frozen -= trained
    else:
        widths = [len(model.get_parameter(f"{site.linear}.weight")) for site in find_sites(model, adapter.towers)]
        trained = sum(width * (2 * adapter.rank if adapter.rank else width) for width in widths)
        kept = sum(width**2 for width in widths) * (1 if adapter.whitening is None else 2)
    stage, share = SHARDINGS.index(sharding), 1 / processes
    found = {
        "weights": 4 * (frozen * (share if stage >= 3 else 1) + trained * (share if stage == 3 else 1) + kept),
        "gradients": 4 * trained * (share if stage in (2, 3) else 1),
        "optimizer": 8 * trained * (share if stage in (1, 2, 3) else 1),
        "activations": _activations(model, adapter, batch) if batch else 0,
    }
    return found | {"total": sum(found.values())}


def _activations(model: nn.Module, adapter: AdapterConfig | None, batch: int) -> int:
    """Bytes that a pass forward keeps for the one backward, without a number computed.

    Attention keeps its whole matrix here, as fast kernels do not.
    """
    own, held = [*model.named_parameters(), *model.named_buffers()], {}
    state = {name: torch.empty_like(each, device="meta") for name, each in own}
    for each in state.values():
        each.requires_grad_(adapter is None and each.is_floating_point())

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    adapters = None if adapter is None else AdapterSet(model, adapter).to("meta").train()
    for site in adapters.sites if adapters is not None and adapters.config.whitening else ():
        adapters[site].basis = adapters[site].average  # type: ignore[index]  # of one shape
    clip: Any = model
    size = clip.visual.image_size
    pixels = torch.empty(batch, 3, *(size if isinstance(size, tuple) else (size, size)), device="meta")
    tokens = torch.empty(batch, clip.context_length, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        functional_call(model, state, (pixels, tokens))
    weights = [*state.values()]
    if adapters is not None:
        adapters.remove()
        weights += [*adapters.parameters(), *adapters.buffers()]
    return sum(each.nbytes() for each in held.values()) - sum(
        each.untyped_storage().nbytes() for each in weights if each.untyped_storage()._cdata in held
    )
