"""What R-Adapter costs beside its peers, in turns in one run: a step, its memory, a merged model, a sweep, the slider.

Costs are seconds of the processor, which what else a machine does hardly changes; their ratios are what holds
elsewhere. Of a real CLIP shapes alone matter here: steps and merged models are of ViT-B-32 with random weights, in
batches of 32. Memory is counted, in bytes, by `radapter_lite.memory`.
"""

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from radapter_lite.adapter import AdapterConfig, AdapterSet
from radapter_lite.alpha_curve import AlphaCurve
from radapter_lite.backbone import Backbone, load_clip
from radapter_lite.backbone.sites import TOWERS, find_blocks
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta
from radapter_lite.evaluation import evaluate, sweep
from radapter_lite.memory import estimate
from radapter_lite.methods.objectives import pair_loss
from radapter_lite.methods.r_adapter import RAdapterConfig
from radapter_lite.progress import progress
from radapter_lite.results import add_rows, missing, read_rows
from radapter_lite.tasks import Batch, as_task

Work = Callable[[], Any]
POINTS = [number / 20 for number in range(21)]
NODES = 11  # of an interpolated sweep: of some hundreds of answers, one is not the model's own


def run_speed(backbone: Backbone, images: ImageSet, path: Path, seeds: int = 5) -> pd.DataFrame:
    """Measure as often as `seeds` says, less what `path` holds; returns the table of `speed_ratios`.

    Rows are id_domain, seed, measure, contender, cost (seconds, or bytes). Sweep and slider take an eighth of the test.
    """
    keys = missing([{"id_domain": images.id_domain, "seed": seed} for seed in range(seeds)], path)
    works = contenders(backbone, images.test.take(range(0, len(images.test), 8))) if keys else []
    for key in progress(keys, path.stem):
        rows, costs = [], dict[Work, float]()
        for measure, contender, work in works:
            if work not in costs:  # a peer of two measures takes one turn
                began = time.process_time()
                counted = work()
                costs[work] = counted if isinstance(counted, float) else time.process_time() - began
            rows.append(key | {"measure": measure, "contender": contender, "cost": costs[work]})
        add_rows(pd.DataFrame(rows), path)
    return speed_ratios(read_rows(path))


def speed_ratios(results: pd.DataFrame) -> pd.DataFrame:
    """R-Adapter's cost in percent of each peer's: measure, peer, percent (median over repeats), lowest and highest."""
    ours = results[results["contender"] == "R-Adapter"].drop(columns="contender")
    both = results.merge(ours, on=["id_domain", "seed", "measure"], suffixes=("", "_ours"))
    both = both[both["contender"] != "R-Adapter"].eval("percent = 100 * cost_ours / cost")
    groups = both.rename(columns={"contender": "peer"}).groupby(["measure", "peer"], sort=False)["percent"]
    return groups.agg(percent="median", lowest="min", highest="max").reset_index()


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


def authors_adapters(clip: Backbone) -> nn.ModuleList:
    """The authors' adapters, inside the blocks, where layer scales would be."""
    blocks: list[Any] = [clip.model.get_submodule(name) for tower in TOWERS for name in find_blocks(clip.model, tower)]
    for block in blocks:
        block.ls_1, block.ls_2 = (AuthorsAdapter(len(block.ln_1.weight)) for _ in range(2))
    return nn.ModuleList(scale for block in blocks for scale in (block.ls_1, block.ls_2))


def contenders(backbone: Backbone, images: ImageSet) -> list[tuple[str, str, Work]]:
    """What is measured: training steps of both encoders, 32 pairs through a merged model, 21 points of α, one move.

    A "frozen pass" goes forward and backward through all blocks, and trains no more than where tokens stand. To "save
    and load" a file for each α is WiSE-FT's way. A sweep is the model's own at each α, or interpolated between `NODES`.
    """
    ours, full, merged, plain = (load_clip("ViT-B-32", "random") for _ in range(4))
    authors, still = (Padded(**vars(load_clip("ViT-B-32", "random"))) for _ in range(2))
    labels = torch.arange(32) % len(images.classes)
    pixels, tokens = images.tensor(ours.preprocess, labels.tolist()), ours.tokenizer(["a photo of a cat."] * 32)
    batch = Batch(pixels, labels, labels[:, None] == labels)

    def step(clip: Backbone, trained: Iterable[nn.Parameter], after: Work = lambda: None) -> Work:
        loss, parameters = pair_loss(clip, as_task(images), RAdapterConfig().criterion), list(trained)
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0)

        def once() -> None:
            optimizer.zero_grad()
            loss(batch).backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            after()

        return once

    for clip in (authors, still):
        clip.model.requires_grad_(False)
    adapters, inside = AdapterSet(ours.model), authors_adapters(authors)
    average = AveragedModel(inside, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    places: Any = [still.model.get_parameter(f"{tower}positional_embedding") for tower in ("", "visual.")]
    random_delta(merged).apply(merged.model, 1.0)
    delta = random_delta(backbone)
    before = copy.deepcopy(backbone.model.state_dict())
    with delta.applied(backbone.model, 1.0):
        after = copy.deepcopy(backbone.model.state_dict())

    def fresh() -> Backbone:  # images are kept for a preprocess: a new one reads them anew
        return replace(backbone, preprocess=partial(backbone.preprocess))

    def through_nodes() -> None:
        AlphaCurve.measure(fresh(), delta, images, NODES).sweep(images, POINTS)

    def save_and_load() -> None:
        with TemporaryDirectory() as folder:
            for alpha in POINTS:
                mixed = {name: (1 - alpha) * before[name] + alpha * after[name] for name in before}
                torch.save(mixed, Path(folder, "model.pt"))
                evaluate(Padded(**vars(load_clip(backbone.name, Path(folder, "model.pt")))), images)

    def evaluation() -> None:
        with delta.applied(backbone.model, 0.37):
            evaluate(backbone, images)

    curve = AlphaCurve.measure(backbone, delta, images)
    return [
        ("step", "R-Adapter", step(ours, adapters.parameters(), adapters.accumulate)),
        ("step", "authors' code", step(authors, inside.parameters(), partial(average.update_parameters, inside))),
        ("step", "full fine-tuning", step(full, full.model.parameters())),
        ("step", "frozen pass", step(still, (each.requires_grad_() for each in places))),
        ("memory", "R-Adapter", lambda: float(estimate(plain.model, AdapterConfig(), batch=32)["total"])),
        ("memory", "full fine-tuning", lambda: float(estimate(plain.model, None, batch=32)["total"])),
        ("merged", "R-Adapter", torch.no_grad()(partial(merged.model, pixels, tokens))),
        ("merged", "open_clip", torch.no_grad()(partial(plain.model, pixels, tokens))),
        ("sweep", "R-Adapter", lambda: sweep(fresh(), delta, images, POINTS)),
        ("sweep", "save and load", save_and_load),
        ("interpolated sweep", "R-Adapter", through_nodes),
        ("interpolated sweep", "save and load", save_and_load),
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
