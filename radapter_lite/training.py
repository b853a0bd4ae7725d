"""One training loop for every method: AdamW, warm-up and cosine, gradient clipping, resumable, reproducible.

A method says what is trained and what the loss of a batch is; everything else is here.
"""

import hashlib
import json
import math
import os
import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.files import whole

BatchLoss = Callable[[Tensor, Tensor], Tensor]  # images [B, 3, H, W], labels [B] -> scalar


@dataclass(frozen=True, eq=False)
class Tuned:
    """What a method that changes CLIP's weights gives back: a delta, and with it a curve along α.

    Attributes:
        delta: what it learned.
        history: a row a step, as `train` makes it.
        trained_parameters: how many numbers it trained.
    """

    delta: Delta
    history: pd.DataFrame
    trained_parameters: int


@dataclass(frozen=True, eq=False)
class TunedPoint:
    """What a method that changes no weight of CLIP gives back: one tuned model, without an α.

    Attributes:
        method: its name, for tables and errors.
        similarities: logits of images with their classes [N, C].
        history: a row a step, as `train` makes it; empty where nothing was trained by gradient.
        trained_parameters: how many numbers it trained.
    """

    method: str
    similarities: Callable[[ImageSet], Tensor]
    history: pd.DataFrame
    trained_parameters: int

    @property
    def delta(self) -> Delta:
        """Raises ValueError: there is none."""
        raise ValueError(
            f"{self.method} learns no change of CLIP's own weights, so it has no delta and no α: it is one point; "
            f"call similarities(images) instead"
        )


@dataclass(frozen=True)
class TrainingConfig:
    """The loop's settings.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; the last batch of an epoch is smaller where they do not divide.
        lr: peak learning rate; it falls along a cosine to `min_lr`, after `warmup_steps` of rising.
        weight_decay: AdamW's.
        clip_norm: the gradient's norm is cut to this.
        crop: smallest share of the image's side a random crop keeps; 1 for no crop.
        flip: whether images are mirrored at random.
        precision: "float32", or "bfloat16" to run the encoders under autocast, which is faster where the
            processor has instructions for it; trained numbers and losses stay in float32.
        seed: decides the order of the images and all else that is drawn.

    Source: the paper's settings for few shots, where they are not size-dependent.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 2e-3
    warmup_steps: int = 0
    min_lr: float = 1e-6
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    crop: float = 0.7
    flip: bool = True
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must lie in (0, 1], not {self.crop}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', not {self.precision!r}")


def augment(images: Tensor, crop: float, flip: bool) -> Tensor:
    """Crop a random square of at least `crop` of the side, stretch it to full size, mirror half of the images.

    Args:
        images: [B, 3, H, W], normalized; the background at the borders is continued.
    """
    size = len(images)
    scale = torch.empty(size).uniform_(crop, 1.0)
    shift = (torch.rand(size, 2) * 2 - 1) * (1 - scale)[:, None]
    mirror = torch.where(torch.rand(size) < 0.5, -1.0, 1.0) if flip else torch.ones(size)
    theta = torch.zeros(size, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * mirror, scale, shift
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def train(
    backbone: Backbone,
    images: ImageSet,
    loss_of_batch: BatchLoss,
    parameters: Iterable[nn.Parameter],
    config: TrainingConfig,
    *,
    after_step: Callable[[], None] = lambda: None,
    state: Mapping[str, nn.Module],
    settings: Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    description: str = "training",
) -> pd.DataFrame:
    """Minimize the loss over the images; a row a step: step, epoch, loss, lr, seconds.

    Args:
        loss_of_batch: of augmented images [B, 3, H, W] and labels [B].
        after_step: called after each optimizer step, to accumulate averages for example.
        state: the modules that change, by name; a checkpoint holds them.
        settings: the method's own, JSON; a checkpoint must be of the same ones.
        checkpoint: a file written after every epoch. If it exists, training goes on from it, with the result
            of a run that was never interrupted.
        description: the method's name, for the progress bar and the checkpoint.

    Raises:
        ValueError: for a checkpoint that is damaged or of other settings, or a loss that is no longer finite.
    """
    trained = [p for p in parameters if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    device = trained[0].device
    steps_per_epoch = math.ceil(len(images) / config.batch_size)
    total = steps_per_epoch * config.epochs
    identity = _identity(backbone, images, description, asdict(config) | dict(settings or {}))
    first_epoch, history = _resume(checkpoint, identity, state, optimizer)
    labels = images.labels
    began = time.perf_counter() - (history[-1]["seconds"] if history else 0.0)
    bar = tqdm(
        total=total, initial=first_epoch * steps_per_epoch, desc=description, mininterval=0.5, leave=False
    )
    # Each epoch draws from its own seed, so that a resumed run needs no random state of the interrupted one.
    with bar, torch.random.fork_rng(devices=[]):
        for epoch in range(first_epoch, config.epochs):
            torch.manual_seed(config.seed * 100_003 + epoch)
            for rows in torch.randperm(len(images)).split(config.batch_size):
                step = len(history)
                lr = float(learning_rate(step, total, config))
                for group in optimizer.param_groups:
                    group["lr"] = lr
                batch = augment(images.tensor(backbone.preprocess, rows.tolist()), config.crop, config.flip)
                with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                    loss = loss_of_batch(batch.to(device), labels[rows].to(device))
                if not torch.isfinite(loss):
                    raise ValueError(
                        f"the loss became {loss.item()} at step {step}: lower lr ({config.lr}) or clip_norm"
                    )
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(trained, config.clip_norm)
                optimizer.step()
                after_step()
                seconds = time.perf_counter() - began
                history.append(
                    {"step": step, "epoch": epoch, "loss": loss.item(), "lr": lr, "seconds": seconds}
                )
                bar.set_postfix(loss=f"{loss.item():.3f}", lr=f"{lr:.1e}", refresh=False)
                bar.update()
            if checkpoint is not None:
                _save(Path(checkpoint), identity, state, optimizer, epoch + 1, history)
    return pd.DataFrame(history)


def learning_rate(step: int, total: int, config: TrainingConfig) -> float:
    """Linear warm-up to `lr`, then a cosine down to `min_lr`, at `step` of `total`."""
    warmup = min(config.warmup_steps, total - 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup - 1)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def _identity(
    backbone: Backbone, images: ImageSet, method: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What a run that is resumed must have in common with the interrupted one."""
    files = hashlib.sha256("\n".join(images.table["file"]).encode()).hexdigest()[:12]
    about = {"method": method, "backbone": backbone.name, "pretrained": backbone.pretrained}
    about["data"] = images.name
    return json.loads(json.dumps(about | {"images": len(images), "files": files} | _flat(settings)))


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value) if isinstance(value, Mapping) else {name: value}
    return flat


def _resume(
    checkpoint: str | os.PathLike[str] | None,
    expected: Mapping[str, Any],
    state: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
) -> tuple[int, list[dict[str, float]]]:
    if checkpoint is None or not Path(checkpoint).exists():
        return 0, []
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        found = saved["identity"]
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise ValueError(
            f"{checkpoint} is damaged or no checkpoint of a training: remove the file to start anew, or name another"
        ) from error
    for name, value in expected.items():
        if found.get(name) != value:
            raise ValueError(
                f"{checkpoint} is of a run with {name}={found.get(name)}, this one has {value}: remove the file "
                f"to start anew, or name another"
            )
    for name, module in state.items():
        module.load_state_dict(saved["state"][name])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["epoch"], saved["history"]


def _save(
    path: Path,
    identity: Mapping[str, Any],
    state: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    epoch: int,
    history: list[dict[str, float]],
) -> None:
    content = {
        "identity": dict(identity),
        "state": {name: module.state_dict() for name, module in state.items()},
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        "history": history,
    }
    with whole(path) as temporary:
        torch.save(content, temporary)
