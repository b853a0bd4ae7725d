"""One training loop for every method and task: AdamW, warm-up and cosine, gradient clipping, resumable, reproducible.

A task makes the batches, a method says what is trained and what the loss of a batch is; everything else is here.
"""

import json
import math
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import AdamW

from radapter_lite import processes
from radapter_lite.files import StrPath, whole
from radapter_lite.progress import progress
from radapter_lite.seeding import seeded
from radapter_lite.settings import Above0, AtLeast0, Bound, Count, Part, Settings, Whole

Loss = Callable[[Any], Tensor]  # of a batch -> scalar
Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]
Row = dict[str, Any]  # of the history
READ_EVERY = 10  # steps whose losses are read together: reading waits for the device
PRECISIONS = ("float32", "bfloat16", "float16")
Precision = Annotated[str, Bound(f"be one of {', '.join(PRECISIONS)}", PRECISIONS.__contains__)]
Layer = Annotated[str, Bound("be input or random", ("input", "random").__contains__)]


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """The loop's settings.

    Attributes:
        epochs: passes over the batches.
        steps: train for so many instead; batches of unknown number need it.
        batch_size: images a step; the last batch of an epoch is smaller where they do not divide.
        lr: peak learning rate; it falls along a cosine to `min_lr`, after `warmup_steps` of rising.
        weight_decay, clip_norm: AdamW's; what the gradient's norm is cut to.
        crop: smallest share of the image's side a random crop keeps; 1 for no crop.
        flip: whether images are mirrored at random.
        precision: "float32", or "bfloat16" or "float16" to run the encoders under autocast; trained numbers and losses
            stay in float32. With float16 the loss is scaled, and a step whose gradients overflow is left out.
        seed: decides the order of the images and all else that is drawn.
        save_every: steps between two states of a checkpoint, which is written after each epoch too.
        mixup, mixup_layer, adversarial, r_drop: few-shot tricks, off at 0, as `radapter_lite.methods.tricks` describes.

    Source: the paper's settings for few shots, where they are not size-dependent.
    """

    epochs: Count = 30
    steps: Count | None = None
    batch_size: Count = 128
    lr: Above0 = 2e-3
    warmup_steps: Whole = 0
    min_lr: AtLeast0 = 1e-6
    weight_decay: AtLeast0 = 0.0
    clip_norm: Above0 = 1.0
    crop: Part = 0.7
    flip: bool = True
    precision: Precision = "float32"
    seed: Whole = 0
    save_every: Count = 100
    mixup: AtLeast0 = 0.0
    mixup_layer: Layer = "input"
    adversarial: AtLeast0 = 0.0
    r_drop: AtLeast0 = 0.0


def augment(images: Tensor, crop: float, flip: bool, size: int | None = None) -> Tensor:
    """Crop a random square of at least `crop` of the side, stretch it to full size, mirror half of the images.

    The images [B, 3, H, W] are normalized; the background at the borders is continued. With a size they are this
    process's rows of a batch of so many, for all of which random numbers are drawn.
    """
    size = size or len(images)
    scale = torch.empty(size).uniform_(crop, 1.0)
    shift = (torch.rand(size, 2) * 2 - 1) * (1 - scale)[:, None]
    mirror = torch.where(torch.rand(size) < 0.5, -1.0, 1.0) if flip else torch.ones(size)
    theta = torch.zeros(size, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * mirror, scale, shift
    grid = F.affine_grid(theta[processes.own_rows(size)].to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def train(
    batches: Iterable[Any],
    loss_of_batch: Loss,
    parameters: Parameters,
    config: TrainingConfig,
    *,
    state: Mapping[str, nn.Module],
    after_step: Callable[[], None] = lambda: None,
    about: Mapping[str, Any] | None = None,
    checkpoint: StrPath | None = None,
) -> pd.DataFrame:
    """Minimize the loss over the batches; a row a step: step, epoch, loss, lr, seconds.

    Raises ValueError for a checkpoint that is damaged or of another run, a loss that is no longer finite, and batches
    whose number is not known, or that cannot be gone through once more; ConnectionError where another process is gone.

    Args:
        batches: gone through once an epoch, each time anew; a list, a DataLoader, what a task makes.
        loss_of_batch: of one of them, a scalar.
        parameters: to be trained; or groups, {"params": [...], "scale": 0.1}, at so many times the learning rate.
        after_step: called after each optimizer step, to accumulate averages for example.
        state: the modules that change, by name; a checkpoint holds them.
        about: what a resumed run must share with the interrupted one beside the settings, JSON; its "method" is shown.
        checkpoint: a file written every `save_every` steps and after each epoch. If it exists, training goes on from
            it, and ends in the same bits as a run that was never interrupted.
    """
    given: list[Any] = list(parameters)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    groups = [{"scale": 1.0} | group | {"params": [p for p in group["params"] if p.requires_grad]} for group in groups]
    optimizer = AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    total = count_steps(batches, config)
    settings = {name: value for name, value in asdict(config).items() if name != "save_every"}
    device = next(p.device.type for group in groups for p in group["params"])
    scaler = GradScaler(device, enabled=config.precision == "float16")
    identity = json.loads(json.dumps({"method": "training"} | dict(about or {}) | settings))
    run = _Run(identity, dict(state) | {"optimizer": optimizer, "scaler": scaler}, checkpoint)
    history, epoch, done, random_state = run.resume()
    processes.share(state.values())
    began = time.perf_counter() - (history[-1]["seconds"] if history else 0.0)
    with progress(what=identity["method"], total=total, initial=len(history)) as bar, processes.together():
        while len(history) < total:
            begun_at = len(history) - done
            # Each epoch begins from its own seed; within one, the interrupted run's random numbers go on.
            with seeded(config.seed * 100_003 + epoch):
                feed = iter(batches)
                for _ in islice(feed, done):
                    pass
                if random_state is not None:
                    torch.set_rng_state(random_state)
                for batch in feed:
                    row = _step(loss_of_batch, batch, optimizer, scaler, config, len(history), total)
                    after_step()
                    history.append(row | {"epoch": epoch, "seconds": time.perf_counter() - began})
                    bar.update()
                    if len(history) % READ_EVERY == 0:
                        _read_losses(history, config)
                        bar.set_postfix(loss=f"{history[-1]['loss']:.3f}", lr=f"{row['lr']:.1e}", refresh=False)
                    if len(history) == total:
                        break
                    if len(history) % config.save_every == 0:
                        _read_losses(history, config)
                        run.save(history, epoch, len(history) - begun_at)
            if len(history) == begun_at:
                again = "give what can be gone through more than once, as a list or a DataLoader"
                raise ValueError(f"the batches gave nothing in epoch {epoch}: {again}")
            _read_losses(history, config)
            epoch, done, random_state = epoch + 1, 0, None
            run.save(history, epoch, 0)
    return pd.DataFrame(history, columns=["step", "epoch", "loss", "lr", "seconds"])


def count_steps(batches: Iterable[Any], config: TrainingConfig) -> int:
    """How many steps training takes. Raises ValueError for batches whose number is needed and not known."""
    if config.steps is not None:
        return config.steps
    if not isinstance(batches, Sized):
        raise ValueError("how many batches there are is not known: set TrainingConfig's steps")
    if not len(batches):
        raise ValueError("there is no batch to train on: give one image or more")
    return config.epochs * len(batches)


def _step(
    loss_of: Loss, batch: Any, optimizer: AdamW, scaler: GradScaler, config: TrainingConfig, step: int, total: int
) -> Row:
    """One step of the optimizer: its number, loss, still on the device, and learning rate."""
    lr = float(learning_rate(step, total, config))
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    device, half = trained[0].device.type, config.precision != "float32"
    # PyTorch's blocked attention takes three times as long as the plain one on the CPU in bfloat16, for 17 tokens.
    attention = sdpa_kernel(SDPBackend.MATH) if half and device == "cpu" else nullcontext()
    with torch.autocast(device, getattr(torch, config.precision), enabled=half), attention:
        loss = loss_of(batch)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    processes.average_gradients(trained)
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(trained, config.clip_norm)
    scaler.step(optimizer)
    scaler.update()
    return {"step": step, "loss": loss.detach(), "lr": lr}


def _read_losses(history: list[Row], config: TrainingConfig) -> None:
    """Make numbers of the last losses. Raises ValueError for the first that is not finite."""
    for row in history[-READ_EVERY:]:
        row["loss"] = float(row["loss"])
        if not math.isfinite(row["loss"]):
            found = f"the loss became {row['loss']} at step {row['step']}"
            raise ValueError(f"{found}: lower lr ({config.lr}) or clip_norm")


def learning_rate(step: int, total: int, config: TrainingConfig) -> float:
    """Linear warm-up to `lr`, then a cosine down to `min_lr`, at `step` of `total`."""
    warmup = min(config.warmup_steps, total - 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup - 1)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class _Run:
    """A run's checkpoint: what it is of, and what changes."""

    identity: dict[str, Any]
    parts: Mapping[str, Any]  # what changes, each with a state dict
    checkpoint: StrPath | None

    def resume(self) -> tuple[list[Row], int, int, Tensor | None]:
        """The history, the epoch, how many of its batches are done, and the random state; anew without a file."""
        if self.checkpoint is None or not Path(self.checkpoint).exists():
            return [], 0, 0, None
        again = "remove the file to start anew, or name another"
        try:
            saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            found, parts, place = saved["identity"], saved["parts"], saved["place"]
        except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
            raise ValueError(f"{self.checkpoint} is damaged or no checkpoint of a training: {again}") from error
        for name, value in self.identity.items():
            if found.get(name) != value:
                other = f"{name}={found.get(name)}, this one has {value}"
                raise ValueError(f"{self.checkpoint} is of a run with {other}: {again}")
        for name, part in self.parts.items():
            part.load_state_dict(parts[name])
        return place

    def save(self, history: list[Row], epoch: int, done: int) -> None:
        """Write the checkpoint, if there is to be one: `done` batches of `epoch` have been stepped on."""
        if self.checkpoint is None or processes.rank():
            return
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        place = history, epoch, done, torch.get_rng_state() if done else None
        with whole(self.checkpoint) as temporary:
            torch.save({"identity": self.identity, "parts": parts, "place": place}, temporary)
