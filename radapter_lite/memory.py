"""How much memory training takes, counted from shapes before it starts, in bytes a process.

In float32 and by AdamW, each number that is trained takes 4 bytes, its gradient 4, and the optimizer 8. ZeRO divides
the last among N processes (stage 1), then the gradients too (2), then all weights (3). The FSDP of this package divides
the frozen backbone alone. Running averages and bases of adapters are never divided. Full fine-tuning is counted without
the copy of the original weights from which its delta is made.
"""

from collections.abc import Iterable

import open_clip
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call

from radapter_lite.adapter import AdapterConfig, AdapterSet, find_sites

SHARDINGS = ("none", "ZeRO-1", "ZeRO-2", "ZeRO-3", "FSDP")


def estimate(
    model: nn.Module,
    adapter: AdapterConfig | None,
    *,
    processes: int = 1,
    sharding: str = "none",
    images: int = 0,
    texts: int = 0,
) -> dict[str, float]:
    """Bytes of weights, gradients, optimizer and activations of one process, and their total.

    Args:
        model: an open_clip CLIP, which may be on the meta device; it is left as it was.
        adapter: R-Adapter's; None for full fine-tuning of both encoders.
        processes: N, among which is divided what `sharding`, one of `SHARDINGS`, says.
        images, texts: what one process encodes in a step; activations are counted for these, as an upper bound.
    """
    frozen, kept = sum(each.numel() for each in [*model.parameters(), *model.buffers()]), 0
    if adapter is None:
        trained = sum(each.numel() for each in model.parameters() if each.ndim)  # the temperature stays fixed
        frozen -= trained
    else:
        widths = [len(model.get_parameter(f"{site.linear}.weight")) for site in find_sites(model, adapter.towers)]
        trained = sum(width * (2 * adapter.rank if adapter.rank else width) for width in widths)
        kept = sum(width**2 for width in widths) * (1 if adapter.whitening is None else 2)
    stage = SHARDINGS.index(sharding)
    parts = {"weights": frozen / (processes if stage >= 3 else 1) + trained / (processes if stage == 3 else 1) + kept}
    parts["gradients"] = trained / (processes if stage in (2, 3) else 1)
    parts["optimizer"] = 2 * trained / (processes if stage in (1, 2, 3) else 1)
    found = {name: 4 * part for name, part in parts.items()} | {
        "activations": _activations(model, adapter, images, texts)
    }
    return found | {"total": sum(found.values())}


def table(names: Iterable[str], adapter: AdapterConfig, processes: int) -> pd.DataFrame:
    """`estimate` without activations of open_clip models, in GB: a row a model, tuning and sharding."""
    rows = []
    for name in names:
        with torch.device("meta"):
            model = open_clip.create_model(name, device="meta")
        for tuning, own in (("full fine-tuning", None), ("R-Adapter", adapter)):
            for sharding in SHARDINGS if own else SHARDINGS[:4]:
                found = estimate(model, own, processes=processes, sharding=sharding)
                rows.append(
                    {"model": name, "tuning": tuning, "sharding": sharding}
                    | {part: size / 1e9 for part, size in found.items() if part != "activations"}
                )
    return pd.DataFrame(rows)


def _activations(model: nn.Module, adapter: AdapterConfig | None, images: int, texts: int) -> int:
    """Bytes that a pass forward keeps for the one backward, without a number computed.

    Attention keeps its whole matrix here, as fast kernels do not.
    """
    if not images + texts:
        return 0
    own = [*model.named_parameters(), *model.named_buffers()]
    state = {name: torch.empty_like(each, device="meta") for name, each in own}
    held = {}

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    adapters = None if adapter is None else AdapterSet(model, adapter).to("meta").train()
    for each in state.values():
        each.requires_grad_(adapters is None and each.is_floating_point())
    size = model.visual.image_size
    pixels = torch.empty(images, 3, *(size if isinstance(size, tuple) else (size, size)), device="meta")
    tokens = torch.empty(texts, model.context_length, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        functional_call(model, state, (pixels, tokens))
    if adapters is not None:
        adapters.remove()
    weights = {
        each.untyped_storage()._cdata for each in [*state.values(), *(adapters.parameters() if adapters else ())]
    }
    return sum(storage.nbytes() for key, storage in held.items() if key not in weights)
