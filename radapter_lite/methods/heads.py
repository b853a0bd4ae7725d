"""Heads on the frozen image encoder's features, and adapters and a cache beside the zero-shot head.

A linear probe is logistic regression. LP-FT goes on from there and fine-tunes the image encoder and the head, which
fits the features before they move, so that they move, and forget, less. At α < 1 both are WiSE-FT: the head is mixed
with zero-shot's, the texts' features over τ.

CLIP-Adapter mixes a small network's answer into the image features: f' = ρ ReLU(W2 ReLU(W1 f)) + (1 - ρ) f,
normalized. Tip-Adapter keeps the training images' features as a cache that votes beside the zero-shot head:

    logits = ratio exp(-β (1 - f K^T)) L + f W_text^T / τ

with keys K the training images' features and L their labels, one-hot; Tip-Adapter-F goes on to train the keys.

Source: Radford et al. 2021 (CLIP), section 3.2, scikit-learn's LogisticRegression; Kumar et al. 2022 (LP-FT, arXiv
2202.10054); Gao et al. 2021 (CLIP-Adapter, arXiv 2110.04544); Zhang et al. 2022 (Tip-Adapter, arXiv 2207.09519).
"""

from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import restored
from radapter_lite.delta import Delta
from radapter_lite.encoding import image_features, text_features
from radapter_lite.methods.objectives import frozen_features, head_loss
from radapter_lite.methods.registry import ADAPTERS_ELSEWHERE, LOOP, WEIGHTS_ELSEWHERE, LossConfig, Train, register
from radapter_lite.methods.whitening import inverse_root
from radapter_lite.seeding import seeded
from radapter_lite.settings import Above0, Count, Part, Settings
from radapter_lite.tasks import Classification, Task
from radapter_lite.training import TrainingConfig
from radapter_lite.tuned import Tuned

HEAD = "head."  # what the names of the head's tensors begin with; the others are changes of CLIP's weights


@dataclass(frozen=True)
class LinearProbeConfig(Settings):
    """The linear probe's settings.

    Attributes:
        C: the loss is C times the cross-entropy summed over images, plus half the squared norm of the weights.
        max_iter: the most steps of the solver (L-BFGS).
        whitening: a damping λ fits the features made equally loud in every direction, as `whiten` makes an adapter's
            inputs, so that the penalty weighs all directions alike.
    """

    C: Above0 = 100.0
    max_iter: Count = 2000
    whitening: Above0 | None = None


@dataclass(frozen=True)
class LpFtConfig(LinearProbeConfig):
    """LP-FT's settings: of the first stage those of the linear probe, of the second those of the loop."""

    training: TrainingConfig = LOOP


def _probed(backbone: Backbone, task: Task, tuned: Tuned, alpha: float) -> Tensor:
    """Cosine-like similarities [N, C]: logits times the backbone's τ, as zero-shot's are."""
    require_texts(tuned.method, tuned.meta["texts"], task)
    changes = {name: tensor for name, tensor in tuned.tensors.items() if not name.startswith(HEAD)}
    with Delta("difference", changes).applied(backbone.model, alpha):
        features = image_features(backbone, task.images)
    weight, bias = (backbone.temperature * tuned.tensors[HEAD + name].to(features) for name in ("weight", "bias"))
    return F.linear(features, text_features(backbone, task.texts(backbone)).lerp(weight, alpha), alpha * bias)


@register("LP-FT", LpFtConfig(), grid=(2.5e-4, 5e-4, 1e-3), elsewhere=WEIGHTS_ELSEWHERE, answer=_probed, slides=True)
def lp_ft(backbone: Backbone, task: Task, config: LpFtConfig, train: Train) -> Tuned:
    """Fit a head, then train it with the image encoder by cross-entropy.

    A class without training images has the similarity -inf. Raises what `linear_probe` and `train` raise.
    """
    model, (weight, bias, fitted) = backbone.model, fit_head(backbone, task, config, "LP-FT")
    head = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight), device=weight.device)
    head.load_state_dict({"weight": weight, "bias": bias})
    visual = [p for name, p in model.named_parameters() if name.startswith("visual.") and p.requires_grad]

    with restored(model) as before:
        state = {"visual": model.get_submodule("visual"), "head": head}
        history = train(head_loss(backbone, head), [*visual, *head.parameters()], **state)
        change = Delta.from_difference(before, model)
    learned = change.tensors | {HEAD + name: tensor.cpu() for name, tensor in head.state_dict().items()}
    return Tuned(learned, history, sum(p.numel() for p in visual) + fitted)


@register("linear probe", LinearProbeConfig(), searched="C", grid=(1.0, 10.0, 100.0), answer=_probed, slides=True)
def linear_probe(backbone: Backbone, task: Task, config: LinearProbeConfig, train: Train) -> Tuned:
    """Fit the probe on unit features of un-augmented images.

    A class without training images has the similarity -inf. There is no checkpoint to write. Raises ValueError for
    images of a single class, or a task without classes.
    """
    weight, bias, fitted = fit_head(backbone, task, config, "a linear probe")
    return Tuned({HEAD + "weight": weight, HEAD + "bias": bias}, no_steps(), fitted)


def fit_head(backbone: Backbone, task: Task, config: LinearProbeConfig, method: str) -> tuple[Tensor, Tensor, int]:
    """Weights [C, D] and biases [C] of a logistic regression on a task's features, and how many numbers were fitted.

    The bias of a class without images is -inf. Raises ValueError if all images are of one class.
    """
    labels, features = labels_of(method, task), image_features(backbone, task.images)
    seen = labels.unique().tolist()
    if len(seen) < 2:
        found = f"these {len(labels)} are all of one"
        raise ValueError(f"a linear probe needs training images of two classes or more; {found}")
    from sklearn.linear_model import LogisticRegression

    inputs = features.detach().cpu().double()
    basis = torch.eye(inputs.shape[1], dtype=inputs.dtype)
    if config.whitening is not None:
        basis = inverse_root(inputs.T @ inputs / len(inputs), config.whitening)  # symmetric
    regression = LogisticRegression(C=config.C, max_iter=config.max_iter)
    regression.fit((inputs @ basis).numpy(), labels.cpu().numpy())
    weight, bias = features.new_zeros(len(task.names), len(basis)), features.new_full((len(task.names),), -torch.inf)
    fitted = len(seen) * (len(basis) + 1)
    if len(seen) == 2:  # scikit-learn keeps one row for two classes, the second's logit against the first's 0
        bias[seen.pop(0)] = 0
    weight[seen] = (torch.from_numpy(regression.coef_) @ basis).to(weight)
    bias[seen] = torch.from_numpy(regression.intercept_).to(bias)
    return weight, bias, fitted


@dataclass(frozen=True)
class ClipAdapterConfig(LossConfig):
    """CLIP-Adapter's settings: the features' width over the bottleneck's, and ρ, the adapted features' share."""

    reduction: Count = 4
    residual_ratio: Part = 0.2


class FeatureAdapter(nn.Module):
    """Unit features [N, D] to adapted unit features [N, D]."""

    def __init__(self, width: int, reduction: int, residual_ratio: float) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.down, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)
        self.residual_ratio = residual_ratio

    def forward(self, features: Tensor) -> Tensor:
        adapted = F.relu(self.up(F.relu(self.down(features))))
        return F.normalize(self.residual_ratio * adapted + (1 - self.residual_ratio) * features, dim=-1)


def _adapted(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
    features, head = image_features(backbone, task.images), text_features(backbone, task.texts(backbone))
    adapter = FeatureAdapter(head.shape[1], tuned.config.reduction, tuned.config.residual_ratio)
    adapter.load_state_dict(tuned.tensors)
    return adapter.to(head.device)(features) @ head.T


@register("CLIP-Adapter", ClipAdapterConfig(), grid=(1e-2, 3e-2, 9e-2), elsewhere=ADAPTERS_ELSEWHERE, answer=_adapted)
def clip_adapter(backbone: Backbone, task: Task, config: ClipAdapterConfig, train: Train) -> Tuned:
    """Train the feature adapter by cross-entropy, both encoders frozen; similarities are cosines [N, C].

    It begins near the zero-shot model, not at it: its weights begin at random. Raises what `train` raises.
    """
    head = text_features(backbone, task.texts(backbone))  # (C, D)
    with seeded(config.training.seed):
        adapter = FeatureAdapter(head.shape[1], config.reduction, config.residual_ratio).to(head.device)
    loss = head_loss(backbone, lambda features: adapter(features) @ head.T / config.temperature, frozen_features)
    history = train(loss, adapter.parameters(), adapter=adapter)
    return Tuned(dict(adapter.state_dict()), history, sum(p.numel() for p in adapter.parameters()))


@dataclass(frozen=True)
class TipAdapterConfig(Settings):
    """Tip-Adapter's settings.

    Attributes:
        cache_ratio: weight of the cache's votes beside the zero-shot logits; the paper's α, and not the kit's.
        beta: β, how fast a vote fades with distance.
        temperature: τ of the zero-shot logits.
        training: None for Tip-Adapter; the loop's settings for Tip-Adapter-F.
    """

    cache_ratio: Above0 = 1.0
    beta: Above0 = 5.5
    temperature: Above0 = 0.01
    training: TrainingConfig | None = None


def vote(config: TipAdapterConfig, keys: Tensor, votes: Tensor, features: Tensor, head: Tensor) -> Tensor:
    """Logits [B, C] of unit features [B, D]: the zero-shot head's, and the votes [N, C] of keys [N, D] nearby."""
    affinity = torch.exp(-config.beta * (1 - features @ keys.T))  # (B, N)
    return config.cache_ratio * (affinity @ votes) + features @ head.T / config.temperature


def _vote(backbone: Backbone, task: Task, tuned: Tuned) -> Tensor:
    require_texts(tuned.method, tuned.meta["texts"], task)
    keys, votes = (tuned.tensors[name].to(backbone.device) for name in ("keys", "votes"))
    head = text_features(backbone, task.texts(backbone))
    return backbone.temperature * vote(tuned.config, keys, votes, image_features(backbone, task.images), head)


TIP = TipAdapterConfig(beta=10.0)
TIP_ELSEWHERE = {"cache_ratio": 1.0, "beta": 5.5}


@register("Tip-Adapter", TIP, searched="cache_ratio", grid=(5.0, 10.0, 20.0), elsewhere=TIP_ELSEWHERE, answer=_vote)
def tip_adapter(backbone: Backbone, task: Task, config: TipAdapterConfig, train: Train) -> Tuned:
    """Fill the cache with un-augmented training images, and train its keys if asked.

    Tip-Adapter-F begins as Tip-Adapter and trains by cross-entropy. Raises ValueError for a task without classes.
    """
    labels = labels_of("Tip-Adapter", task)
    keys = nn.Parameter(image_features(backbone, task.images))  # (N, D)
    head = text_features(backbone, task.texts(backbone))  # (C, D)
    votes = F.one_hot(labels, len(head)).to(head)  # (N, C)
    loss = head_loss(backbone, lambda features: vote(config, keys, votes, features, head), frozen_features)
    trained = 0 if config.training is None else keys.numel()
    history = train(loss, [keys], cache=nn.ParameterList([keys])) if trained else no_steps()
    return Tuned({"keys": keys.detach(), "votes": votes}, history, trained)


TIP_F = replace(TIP, cache_ratio=10.0, training=LOOP)
TIP_F_ELSEWHERE = ADAPTERS_ELSEWHERE | TIP_ELSEWHERE
register("Tip-Adapter-F", TIP_F, grid=(3e-4, 1e-3, 3e-3), elsewhere=TIP_F_ELSEWHERE, answer=_vote)(tip_adapter)


def labels_of(method: str, task: Task) -> Tensor:
    """The class of every training image [N]. Raises ValueError for a task that has no classes to make a head for."""
    if not isinstance(task, Classification):
        found = f"{method} makes a head for classes, and {type(task).__name__} has none"
        raise ValueError(f"{found}: choose a method that tunes the encoders, such as R-Adapter or FLYP")
    return task.images.labels


def require_texts(method: str, trained: list[str], task: Task) -> None:
    """Raise ValueError for other texts than a head was made for: its columns would mean others."""
    if trained != (found := list(task.names)):
        made = f"a head for its {len(trained)} training classes ({', '.join(trained[:3])}, ...)"
        other = f"these images have {len(found)} classes ({', '.join(found[:3])}, ...)"
        advice = "train it on these classes, or evaluate it on images of the same ones"
        raise ValueError(f"{method} has {made}, and {other}: {advice}")


def no_steps() -> pd.DataFrame:
    """The history of a method that takes no gradient step: `train`'s columns, no row."""
    return pd.DataFrame({name: [] for name in ("step", "epoch", "loss", "lr", "seconds")})
