"""Bottleneck adapters: two layers with a non-linearity between, which cannot be merged into CLIP's weights.

Houlsby's stand where R-Adapter's linear maps stand, behind every attention and MLP; AdaptFormer's beside every MLP.

Source: Houlsby et al. 2019 (arXiv 1902.00751); Chen et al. 2022 (AdaptFormer, arXiv 2205.13535).
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import TOWERS, Attachment, find_sites
from radapter_lite.encoding import predict
from radapter_lite.methods.objectives import contrastive_loss
from radapter_lite.methods.registry import ADAPTERS_ELSEWHERE, LossConfig, Train, register
from radapter_lite.seeding import seeded
from radapter_lite.settings import Above0, Count
from radapter_lite.tasks import Task
from radapter_lite.tuned import Tuned


@dataclass(frozen=True)
class HoulsbyConfig(LossConfig):
    """The Houlsby adapter's settings: the width between its two layers, and the encoders that are adapted."""

    bottleneck: Count = 16
    towers: tuple[str, ...] = TOWERS


@dataclass(frozen=True)
class AdaptFormerConfig(HoulsbyConfig):
    """AdaptFormer's settings: Houlsby's, and s, what the branch is multiplied by."""

    scale: Above0 = 0.1


class Bottleneck(nn.Module):
    """Y + s (f(X W_down + b_down) W_up + b_up), which is Y at the start because W_up and both biases are zero.

    Houlsby's has X = Y, a layer's output, f = GELU and s = 1; AdaptFormer's has X and Y before and after an MLP, and
    f = ReLU. `like` [d, d_in] is a weight of the layer that it stands beside.
    """

    def __init__(self, like: Tensor, config: HoulsbyConfig) -> None:
        super().__init__()
        self.down = nn.Linear(len(like), config.bottleneck)
        self.up = nn.Linear(config.bottleneck, len(like))
        self.scale = config.scale if isinstance(config, AdaptFormerConfig) else None
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)
        self.to(like)

    def forward(self, inputs: Tensor, output: Tensor) -> Tensor:
        """X and Y [..., d] -> [..., d]."""
        if self.scale is None:
            return output + self.up(F.gelu(self.down(output)))
        return output + self.scale * self.up(F.relu(self.down(inputs)))


def make_bottlenecks(backbone: Backbone, config: HoulsbyConfig) -> dict[str, Bottleneck]:
    """The adapters as they begin, W_down drawn with the seed, by the name of the module whose output each changes."""
    sites = find_sites(backbone.model, config.towers)
    places = {site.hooked: site for site in sites}
    if isinstance(config, AdaptFormerConfig):  # the MLP that the linear layer belongs to
        for name in (site.linear for site in sites if site.kind != "attn"):
            if ".mlp." not in name or not isinstance(backbone.model.get_submodule(name), nn.Linear):
                found = f"AdaptFormer stands beside MLPs of linear layers, and {name} is in none"
                raise ValueError(f"{found}: leave that tower out, or choose another method, as the Houlsby adapter")
        places = {site.linear.rpartition(".")[0]: site for site in sites if site.kind == "mlp"}
    weights = {place: backbone.model.get_parameter(f"{site.linear}.weight") for place, site in places.items()}
    with seeded(config.training.seed):
        return {place: Bottleneck(weight, config) for place, weight in weights.items()}


def _answer(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
    adapters = make_bottlenecks(backbone, tuned.config)
    nn.ModuleList(adapters.values()).load_state_dict(tuned.tensors)
    with Attachment(backbone.model, adapters):
        return predict(backbone, task)


@register("Houlsby adapter", HoulsbyConfig(), grid=(5e-3, 1e-2, 2e-2), elsewhere=ADAPTERS_ELSEWHERE, answer=_answer)
def houlsby_adapter(backbone: Backbone, task: Task, config: HoulsbyConfig, train: Train) -> Tuned:
    """Train bottlenecks with FLYP's loss: Houlsby's, or AdaptFormer's for its settings.

    What is behind a sublayer comes before the residual sum. Raises what `find_sites` and `train` raise, and ValueError
    where AdaptFormer finds a block without an MLP of linear layers.
    """
    places = make_bottlenecks(backbone, config)
    adapters = nn.ModuleList(places.values())
    with Attachment(backbone.model, places):
        history = train(contrastive_loss(backbone, task, config.temperature), adapters.parameters(), adapters=adapters)
    return Tuned(dict(adapters.state_dict()), history, sum(p.numel() for p in adapters.parameters()))


adaptformer = register(
    "AdaptFormer", AdaptFormerConfig(), grid=(2.5e-2, 5e-2, 1e-1), elsewhere=ADAPTERS_ELSEWHERE, answer=_answer
)(houlsby_adapter)
