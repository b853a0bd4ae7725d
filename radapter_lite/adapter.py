"""R-Adapter: a linear map after every attention, MLP and convolutional block of a CLIP's two encoders.

    h(X) = X W_adp + X          W_adp starts at zero, so the tuned model begins as the zero-shot model

`LinearAdapter` is one of them; `AdapterSet` puts one at every site of a model, and gives the `Delta` that merges them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import TOWERS, Attachment, Change, Site, find_sites
from radapter_lite.delta import Delta, require_untouched
from radapter_lite.settings import Above0, Bound, Count, Settings, Share

DROPS = ("adapter", "path", "number")
Drop = Annotated[str, Bound(f"be one of {', '.join(DROPS)}", DROPS.__contains__)]
TOWERS_RULE = "be ('image', 'text'), one of the two in a tuple, or () to train a stem alone"
Towers = Annotated[
    tuple[str, ...], Bound(TOWERS_RULE, lambda own: not isinstance(own, str) and len({*own}) == len(own))
]


@dataclass(frozen=True)
class AdapterConfig(Settings):
    """What an AdapterSet is made of.

    Attributes:
        rank: of W_adp = B A; None for a full d x d matrix.
        drop_prob: p, the probability that an adapter is left out of a training step, in [0, 1).
        drop: what is left out: the whole "adapter" for the step, as in the paper; its "path" for each image, as in
            drop-path (in Swin's attention for each window); or each "number" of its output, as in dropout.
        momentum: m of the running average, in [0, 1).
        towers: which encoders are adapted.
        whitening: None for the paper's form; a damping λ above 0 trains V of W_adp = P V, see
            `radapter_lite.methods.whitening`, whose `whiten` must then be called after attaching.
    """

    rank: Count | None = None
    drop_prob: Share = 0.2
    drop: Drop = "adapter"
    momentum: Share = 0.999
    towers: Towers = TOWERS
    whitening: Above0 | None = None


class LinearAdapter(nn.Module):
    """h(X) = X W_adp + X, without bias or non-linearity; W_adp is full, or B A of a low rank.

    The average is of W_adp itself, as the paper writes it: while training lasts, a d x d matrix whatever the rank.
    In training, with dropping: h(X) = γ/(1-p) X W_adp + X, γ ~ Bernoulli(1-p) drawn once a call, for the whole batch,
    from torch's global CPU generator; see `AdapterConfig` for other ways. In evaluation: the average, none dropped.

    Source: Kim et al. 2024, R-Adapter, with adapter dropping and accumulation.
    """

    average: Tensor  # (d, d)
    basis: Tensor | None  # (d, d), P of a whitened adapter

    def __init__(self, width: int, rank: int | None = None, drop_prob: float = 0.2, drop: str = "adapter") -> None:
        super().__init__()
        if rank is not None and not 1 <= rank <= width:
            raise ValueError(f"rank {rank} does not fit a layer of width {width}: choose 1 to {width}, or None")
        self.rank, self.drop_prob, self.drop = rank, drop_prob, drop
        zeros = torch.zeros(width, width)
        if rank is None:
            self.weight = nn.Parameter(zeros.clone())  # (d, d)
        else:  # one factor is zero and the other is not, so that the product is zero and its gradient is not
            bound = width**-0.5
            self.B = nn.Parameter(zeros[:, :rank].clone().uniform_(-bound, bound))  # (d, r)
            self.A = nn.Parameter(zeros[:rank].clone())  # (r, d)
        self.register_buffer("average", zeros)  # (d, d)
        self.register_buffer("basis", None)

    def matrix(self) -> Tensor:
        """W_adp as it stands in training [d, d]."""
        trained = self.weight if self.rank is None else self.B @ self.A
        return trained if self.basis is None else self.basis @ trained

    def forward(self, x: Tensor) -> Tensor:
        """Adapt X [..., d], or [B, ..., d] where paths are dropped."""
        if not self.training:
            return x + x @ self.average
        if self.drop == "adapter" and self.drop_prob and torch.rand(()).item() < self.drop_prob:
            # Nothing of a dropped adapter is computed, but its gradient must be zero, not missing, or the optimizer
            # would pass it over, and a step that drops all of them would have nothing to differentiate.
            return x + 0.0 * sum(parameter.sum() for parameter in self.parameters())
        change = x @ self.matrix() if self.rank is None or self.basis is not None else x @ self.B @ self.A
        if self.drop == "adapter" or self.drop_prob == 0:
            return x + 1 / (1 - self.drop_prob) * change
        shape = x.shape if self.drop == "number" else (len(x), *[1] * (x.ndim - 1))
        kept = (torch.rand(shape) >= self.drop_prob).to(change)
        return x + kept / (1 - self.drop_prob) * change

    @torch.no_grad()
    def accumulate(self, momentum: float) -> None:
        """W̃_adp <- m W̃_adp + (1 - m) W_adp."""
        self.average.lerp_(self.matrix(), 1 - momentum)


class AdapterSet(nn.Module):
    """The adapters of one model, attached to it by forward hooks.

    The model's own weights are frozen meanwhile. The set has its own mode, apart from the model's: `adapters.train()`
    uses the live weights with dropping, `adapters.eval()` the running averages without. Call `accumulate()` after each
    optimizer step, and `remove()` to give the model back as it was. Raises ValueError for a tower whose blocks are
    not known, a rank wider than a layer, or a model that carries adapters already or has a delta applied to it.
    """

    _model: nn.Module

    def __init__(self, model: nn.Module, config: AdapterConfig | None = None) -> None:
        super().__init__()
        self.config = config or AdapterConfig()
        self.sites = find_sites(model, self.config.towers)
        require_untouched(model)
        self.adapters = nn.ModuleDict()
        changes: dict[str, Change] = {}
        for site in self.sites:
            weight = model.get_parameter(f"{site.linear}.weight")  # (d, d_in)
            adapter = LinearAdapter(len(weight), self.config.rank, self.config.drop_prob, self.config.drop)
            self.adapters[_key(site)] = adapter.to(weight)
            changes[site.hooked] = lambda _, output, own=adapter: own(output)  # type: ignore[misc]
        object.__setattr__(self, "_model", model)  # not a submodule: its weights are not ours to list or to save
        self._attachment = Attachment(model, changes)

    def __getitem__(self, site: Site) -> LinearAdapter:
        return self.adapters[_key(site)]  # type: ignore[return-value]

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def accumulate(self) -> None:
        """Move every running average towards the live weights; call it after each optimizer step."""
        for site in self.sites:
            self[site].accumulate(self.config.momentum)

    def delta(
        self,
        averaged: bool = True,
        *,
        backbone: Backbone | None = None,
        original: Mapping[str, Tensor] | None = None,
        settings: Mapping[str, Any] | None = None,
        changes: Mapping[str, Tensor] | None = None,
    ) -> Delta:
        """Return what tuning changed, to be merged into the model's weights at any α.

        Args:
            averaged: take the running averages, as `eval()` does; False takes the live weights.
            backbone: noted in the delta by its name and its weights' origin.
            original: the model's state dict, where the one adapted is a sharded copy.
            settings: of the training, noted beside the adapters' own; must be JSON.
            changes: ΔW of weights that were tuned beside the adapters, by name.
        """
        matrices = {site.linear: self[site].average if averaged else self[site].matrix() for site in self.sites}
        matrices |= changes or {}
        noted = asdict(self.config) | {"averaged": averaged} | dict(settings or {})
        state = original or self._model.state_dict()
        return Delta.from_adapters(state, matrices, backbone=backbone, method="R-Adapter", settings=noted)

    def remove(self) -> None:
        """Detach from the model and thaw what attaching froze; the adapters keep their weights."""
        self._attachment.close()


def _key(site: Site) -> str:
    return site.name.replace(".", "_")  # a ModuleDict takes no dots
