"""What R-Adapter costs beside its peers, in turns in one run: a step, its memory, a merged model, a sweep, the slider.

Seconds are the processor's, which what else a machine does hardly changes; their ratios are what holds elsewhere. Of a
real CLIP shapes alone matter here: steps and merged models are of ViT-B-32 with random weights, in batches of 32.
"""

import copy
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from radapter_lite.adapter import AdapterSet
from radapter_lite.alpha_curve import AlphaCurve
from radapter_lite.backbone import Backbone, load_clip
from radapter_lite.backbone.attaching import changed_inputs, frozen
from radapter_lite.backbone.sites import TOWERS, find_blocks
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.evaluation import evaluate, sweep
from radapter_lite.methods.objectives import pair_loss
from radapter_lite.methods.r_adapter import RAdapterConfig
from radapter_lite.progress import progress
from radapter_lite.results import add_rows, missing, read_rows
from radapter_lite.tasks import Batch, as_task

Work = Callable[[], Any]  # what gives a whole number costs so many bytes, else the time it takes
POINTS = [number / 20 for number in range(21)]


def run_speed(backbone: Backbone, images: ImageSet, path: Path, seeds: int = 5) -> pd.DataFrame:
    """Measure as often as `seeds` says, less what `path` holds; returns the table of `speed_ratios`.

    Rows are id_domain, seed, measure, contender and cost, in seconds or bytes; R-Adapter is a measure's first
    contender. Sweep and slider are of the backbone, on every eighth test image.
    """
    keys = missing([{"id_domain": images.id_domain, "seed": seed} for seed in range(seeds)], path)
    with ExitStack() as stack:
        few = images.test.take(range(0, len(images.test), 8))
        works = [*steps(few, stack), *sweeps(backbone, few, stack)] if keys else []
        for key in progress(keys, path.stem):
            rows = []
            for measure, contender, work in works:
                began = time.process_time()
                size = work()
                cost = size if isinstance(size, int) else time.process_time() - began
                rows.append(key | {"measure": measure, "contender": contender, "cost": cost})
            add_rows(pd.DataFrame(rows), path)
    return speed_ratios(read_rows(path))


def speed_ratios(results: pd.DataFrame) -> pd.DataFrame:
    """R-Adapter's cost in percent of each peer's: measure, peer, percent (median over repeats), lowest and highest."""
    rows = []
    for measure, own in results.groupby("measure", sort=False):
        costs = own.pivot(index="seed", columns="contender", values="cost")
        ours, *peers = own["contender"].unique()
        for peer in peers:
            percent = 100 * costs[ours] / costs[peer]
            rows.append((measure, peer, percent.median(), percent.min(), percent.max()))
    return pd.DataFrame(rows, columns=["measure", "peer", "percent", "lowest", "highest"])


class Padded(Backbone):
    """A backbone that encodes every text to its context length, as open_clip alone does."""

    def encode_texts(self, texts: Any) -> Tensor:
        return self.model.encode_text(texts, normalize=True)  # type: ignore[operator]


class AuthorsAdapter(nn.Module):
    """An adapter as the released code has it: with a learned scalar, and dropped for each sample alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.zeros(width, width)), nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        kept = (torch.rand(len(x), 1, 1) >= 0.2).to(x)
        return x + kept / 0.8 * self.scale * (x @ self.weight)


def blocks_of(clip: Backbone) -> list[list[Any]]:
    """The blocks of each encoder."""
    return [list(clip.model.get_submodule(find_blocks(clip.model, tower)[0]).children()) for tower in TOWERS]


def authors_adapters(clip: Backbone) -> nn.ModuleList:
    """The authors' adapters, inside the blocks, where layer scales would be."""
    blocks = sum(blocks_of(clip), [])
    for block in blocks:
        block.ls_1, block.ls_2 = (AuthorsAdapter(len(block.ln_1.weight)) for _ in range(2))
    return nn.ModuleList(scale for block in blocks for scale in (block.ls_1, block.ls_2))


def steps(images: ImageSet, stack: ExitStack) -> list[tuple[str, str, Work]]:
    """Training steps of both encoders, their memory, and 32 images and texts through a merged model.

    A "frozen pass" goes forward and backward through frozen weights, and trains nothing. Memory is counted: weights,
    what is kept for the backward pass, and for each trained number three more.
    """
    ours, full, merged, plain = (load_clip("ViT-B-32", "random") for _ in range(4))
    authors, still = (Padded(**vars(load_clip("ViT-B-32", "random"))) for _ in range(2))
    labels = torch.arange(32) % len(images.classes)
    pixels = images.tensor(ours.preprocess, labels.tolist())
    batch = Batch(pixels, labels, labels[:, None] == labels)

    def loss_of(clip: Backbone) -> Work:
        return partial(pair_loss(clip, as_task(images), RAdapterConfig().criterion), batch)

    def training(clip: Backbone, module: nn.Module, after: Work) -> Work:
        loss, parameters = loss_of(clip), list(module.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0)

        def once() -> None:
            optimizer.zero_grad()
            loss().backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            after()

        return once

    def memory(clip: Backbone, *modules: nn.Module) -> int:
        kept: dict[int, int] = {}

        def keep(x: Tensor) -> Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with saved_tensors_hooks(keep, lambda x: x):
            alive = loss_of(clip)()  # with all that it keeps
        weights = [keep(each) for module in modules for each in (*module.parameters(), *module.buffers())]
        return sum(kept.values()) + 3 * sum(each.nbytes for each in weights if each.requires_grad & alive.requires_grad)

    adapters = AdapterSet(ours.model)
    for clip in (authors, still):
        stack.enter_context(frozen(clip.model))
    inside, passing = authors_adapters(authors), loss_of(still)
    average = AveragedModel(inside, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    entries = [blocks[0] for blocks in blocks_of(still)]
    stack.enter_context(changed_inputs(entries, lambda x: x.detach().requires_grad_()))
    random_delta(merged).apply(merged.model, 1.0)
    tokens = ours.tokenizer(["a photo of a cat."] * 32)
    return [
        ("step", "R-Adapter", training(ours, adapters, adapters.accumulate)),
        ("step", "authors' code", training(authors, inside, partial(average.update_parameters, inside))),
        ("step", "full fine-tuning", training(full, full.model, lambda: None)),
        ("step", "frozen pass", lambda: passing().backward()),
        ("memory", "R-Adapter", partial(memory, ours, ours.model, adapters)),
        ("memory", "full fine-tuning", partial(memory, full, full.model)),
        ("merged", "R-Adapter", torch.no_grad()(partial(merged.model, pixels, tokens))),
        ("merged", "open_clip", torch.no_grad()(partial(plain.model, pixels, tokens))),
    ]


def sweeps(backbone: Backbone, images: ImageSet, stack: ExitStack) -> list[tuple[str, str, Work]]:
    """21 points of α, beside WiSE-FT's way, a file for each; and a move of the slider beside an evaluation."""
    delta, file = random_delta(backbone), Path(stack.enter_context(TemporaryDirectory()), "model.pt")
    curve = AlphaCurve.measure(backbone, delta, images)
    before = copy.deepcopy(backbone.model.state_dict())
    with delta.applied(backbone.model, 1.0):
        after = copy.deepcopy(backbone.model.state_dict())
    stack.enter_context(delta.applied(backbone.model, 0.0))

    def in_place() -> None:  # images are kept for a preprocess: a new one reads them anew
        sweep(Backbone(**vars(backbone) | {"preprocess": partial(backbone.preprocess)}), delta, images, POINTS)

    def save_and_load() -> None:
        for alpha in POINTS:
            torch.save({name: (1 - alpha) * before[name] + alpha * after[name] for name in before}, file)
            evaluate(Padded(**vars(load_clip(backbone.name, file))), images)

    def evaluation() -> None:
        delta.apply(backbone.model, 0.37)
        evaluate(backbone, images)

    return [
        ("sweep", "R-Adapter", in_place),
        ("sweep", "save and load", save_and_load),
        ("slider", "R-Adapter", lambda: as_task(images).score(curve.at(0.37))),
        ("slider", "evaluation", evaluation),
    ]


def random_delta(backbone: Backbone) -> Delta:
    """The delta of adapters in both encoders that were filled at random."""
    adapters = AdapterSet(backbone.model)
    for site in adapters.sites:
        nn.init.normal_(adapters[site].average, std=0.01)
    adapters.remove()
    return adapters.delta(backbone=backbone)
