"""Whitened adapters, which learn in fewer steps: W_adp = P V, with P fixed by the adapter's inputs, and V trained.

A few directions carry nearly all that reaches an adapter: a step of one size overshoots in these and crawls in the
others. With M = E[xᵀx] of the zero-shot model's inputs x (row vectors) and r² = tr M / d,

    P = r (M + λ r² I)^(-1/2)

makes them equally loud, down to the damping λ. h(X) = X P V + X is the same linear adapter. This is not in the paper.

Source: the preconditioner is the input factor of K-FAC, Martens and Grosse 2015.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from radapter_lite.adapter import AdapterSet
from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.encoding import BATCH
from radapter_lite.tasks import Task, as_task

IMAGES = 256  # enough to see the loud directions


@torch.no_grad()
def whiten(adapters: AdapterSet, backbone: Backbone, task: ImageSet | Task, seed: int = 0) -> None:
    """Set the bases of adapters that were just attached, from the zero-shot model's features.

    M is the mean over batches of 256 images or texts, which count alike: at most 256 of the task's images, drawn with
    the seed, and all wordings of its texts with their padding. The adapters are still at zero; their `whitening` is λ.
    """
    damping = adapters.config.whitening
    assert damping is not None, "AdapterConfig.whitening is None: there is nothing to whiten"
    with ExitStack() as stack:
        stack.callback(adapters.train, adapters.training)
        adapters.eval()
        moments = second_moments({site: adapters[site] for site in adapters.sites}, backbone, task, seed)
    for site, moment in moments.items():
        adapters[site].basis = inverse_root(moment, damping)


@torch.no_grad()
def second_moments(
    modules: Mapping[Any, nn.Module], backbone: Backbone, task: ImageSet | Task, seed: int
) -> dict[Any, Tensor]:
    """M [d, d] of what each of some modules of the backbone's model takes in, by their keys; see `whiten`.

    A module that is never called, as an attention's last layer is not, has none.
    """
    moments: dict[Any, list[Tensor]] = {key: [] for key in modules}
    images, texts = (task := as_task(task)).images, task.texts(backbone)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    with ExitStack() as stack:
        for key, module in modules.items():
            stack.callback(module.register_forward_pre_hook(partial(_collect, moments[key])).remove)
        for batch in images.tensor(backbone.preprocess, order.tolist()).split(BATCH):
            backbone.encode_images(batch)
        for part in backbone.tokenizer([wording for wordings in texts for wording in wordings]).split(BATCH):
            backbone.model.encode_text(part.to(backbone.device))  # type: ignore[operator]
    return {key: torch.stack(found).mean(0) for key, found in moments.items() if found}


def inverse_root(moment: Tensor, damping: float) -> Tensor:
    """r (M + λ r² I)^(-1/2) of a second moment M [d, d], r² = tr M / d, in M's type; the identity for M = 0."""
    wide = moment.cpu().double()  # not every device has float64
    identity, mean = torch.eye(len(wide)).to(wide), wide.trace() / len(wide)
    if mean == 0:
        return identity.to(moment)
    values, vectors = torch.linalg.eigh(wide + damping * mean * identity)
    return (mean.sqrt() * (vectors * values.rsqrt()) @ vectors.T).to(moment)


def _collect(moments: list[Tensor], module: nn.Module, inputs: tuple[Tensor]) -> None:
    x = inputs[0].flatten(0, -2)  # (tokens, d)
    moments.append(x.T @ x / len(x))
