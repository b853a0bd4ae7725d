"""Pretrain PictoCLIP on the corpus, from scratch, and write its weights into the package's assets.

    python pretrain.py --build BUILD [--steps 3800]

The run is decided by its seed: each step draws its batch and its jitter from a generator seeded with (seed, step).
A checkpoint is written every 200 steps, and the same command goes on from it. The package's assets are replaced once,
after the last step.
"""

import argparse
import hashlib
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from radapter_lite.backbone.pictoclip import PROMPTS, WEIGHTS, build, load_config, load_tokenizer
from radapter_lite.delta_file import write_tensors

CURVE = Path(__file__).parent / "curve.json"
TEMPLATES = ("{}", *PROMPTS)  # the bare name twice as often
COMMON_UNTIL = 0.35  # up to here only captions that stand 10 times or more are shown
WARM_UP = 150
# The benchmark's kept pictograms are one in three hundred draws by frequency, too few views for any of them to be
# learned. After the main schedule come some steps, at a lower rate, in which they are a fifth of each batch, each as
# likely as the next: a class with 32 of them is seen 16 times as often as a class with 2, and zero-shot follows.
FOCUS_STEPS = 240
FOCUS_SHARE = 0.2
FOCUS_LR = 5e-4


class Corpus:
    """The pretraining pictograms in memory, and a sampler over them.

    Rare captions are drawn more often than their share (weight 1/sqrt(frequency)), coloured icons twice as often.
    """

    def __init__(self, build: Path) -> None:
        table = pd.read_csv(build / "corpus.csv", keep_default_na=False)  # "null" is a caption
        ink, colour = [], []
        for prefix, rows in tqdm(table.groupby("set", sort=False), desc="reading corpus"):
            with np.load(build / "sets" / f"{prefix}.npz") as rendered:
                (colour if rows["colour"].iloc[0] else ink).append((rows.index, rendered["images"][rows["row"]]))
        order = np.concatenate([index for index, _ in ink + colour])
        table = table.loc[order].reset_index(drop=True)
        self.ink = np.concatenate([images for _, images in ink])
        self.colour = np.concatenate([images for _, images in colour])
        self.captions = [json.loads(text) for text in table["captions"]]
        self.label = pd.factorize(table["caption"])[0]
        frequency = table["caption"].map(table["caption"].value_counts()).to_numpy()
        weight = 1 / np.sqrt(frequency) * np.where(table["colour"], 2, 1)
        shown = {True: weight * (frequency >= 10), False: weight * np.where(frequency < 2, 0.5, 1)}
        self.chance = {early: w / w.sum() for early, w in shown.items()}
        kept = table["kept"].to_numpy(bool)
        self.focused = FOCUS_SHARE * kept / kept.sum() + (1 - FOCUS_SHARE) * self.chance[False]

    def draw(self, size: int, chance: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
        """Indices of a batch, the coloured icons last, and a caption in a template for each."""
        index = np.sort(rng.choice(len(self.label), size, p=chance))
        texts = []
        for i in index:
            options = self.captions[i]
            caption = options[0] if rng.random() < 0.7 else options[rng.integers(len(options))]
            texts.append(TEMPLATES[rng.integers(len(TEMPLATES))].format(caption))
        return index, texts

    def images(self, index: np.ndarray) -> Tensor:
        """Icons in random ink on random paper, turned, moved and scaled a little: (B, 3, 48, 48) in [-1, 1]."""
        is_ink = index < len(self.ink)
        alpha = torch.from_numpy(self.ink[index[is_ink]]).float().div_(255).unsqueeze(1)
        n = len(alpha)
        ink, paper = torch.rand(n, 3, 1, 1), torch.rand(n, 3, 1, 1)
        plain = torch.rand(n, 1, 1, 1) < 0.6  # most icons dark on light, the others in any two colours
        ink, paper = torch.where(plain, ink * 0.25, ink), torch.where(plain, 1 - paper * 0.15, paper)
        faint = (ink - paper).abs().mean(1, keepdim=True) < 0.25
        ink, paper = torch.where(faint, 0, ink), torch.where(faint, 1, paper)
        drawn, ground = [alpha * ink + (1 - alpha) * paper], [paper]
        if not is_ink.all():
            rgba = torch.from_numpy(self.colour[index[~is_ink] - len(self.ink)]).float().div_(255).permute(0, 3, 1, 2)
            white = torch.rand(len(rgba), 1, 1, 1) < 0.6
            paper = torch.where(white, torch.ones(len(rgba), 3, 1, 1), torch.rand(len(rgba), 3, 1, 1))
            drawn.append(rgba[:, :3] * rgba[:, 3:] + (1 - rgba[:, 3:]) * paper)
            ground.append(paper)
        picture, paper = torch.cat(drawn), torch.cat(ground)
        zoom = 1 / torch.empty(len(index)).uniform_(0.7, 1.1)
        angle = torch.empty(len(index)).normal_(0, 0.12)
        shift = torch.empty(len(index), 2).uniform_(-0.12, 0.12)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
        grid = F.affine_grid(theta, list(picture.shape), align_corners=False)
        return (F.grid_sample(picture - paper, grid, align_corners=False) + paper - 0.5) / 0.5


def contrastive_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor, label: Tensor) -> Tensor:
    """Mean of both directions' cross-entropy; pairs with equal captions are positives of each other."""
    target = (label[:, None] == label[None]).float()
    target /= target.sum(1, keepdim=True)
    logits = logit_scale.exp().clamp(max=100) * image_features @ text_features.T
    loss = (target * F.log_softmax(logits, 1)).sum(1) + (target * F.log_softmax(logits.T, 1)).sum(1)
    return -loss.mean() / 2


def save_weights(state: dict[str, Tensor]) -> None:
    """The averaged weights as float16 safetensors in the package's assets."""
    half = {name: t.half().contiguous() if t.is_floating_point() else t for name, t in state.items()}
    write_tensors(WEIGHTS, {name: t for name, t in half.items() if name != "attn_mask"}, {})


def identity(args: argparse.Namespace) -> dict[str, int | float | str]:
    """What a run that is resumed must have in common with the interrupted one."""
    corpus = hashlib.sha256((args.build / "corpus.csv").read_bytes()).hexdigest()[:12]
    return {"steps": args.steps, "batch": args.batch, "lr": args.lr, "seed": args.seed, "corpus": corpus}


def read_checkpoint(path: Path, run: dict[str, int | float | str]) -> dict | None:
    """What an interrupted run left, None if there is nothing. Raises SystemExit for a run of another identity."""
    if not path.exists():
        return None
    saved = torch.load(path, weights_only=True)
    found = saved.get("run", {})
    for name, value in run.items():
        if found.get(name) != value:
            raise SystemExit(
                f"{path} is of a run with {name}={found.get(name)}, this one has {value}: remove the file to start anew"
            )
    return saved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build"), help="where build_benchmark.py left the corpus")
    parser.add_argument("--steps", type=int, default=3800)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    checkpoint, run = args.build / "pretrain.pt", identity(args)
    saved = read_checkpoint(checkpoint, run)
    corpus = Corpus(args.build)
    config = load_config()
    tokenize = load_tokenizer(config)
    torch.manual_seed(args.seed)
    model = build(config).train()
    groups: list[dict] = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), fused=True)
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, seconds, losses = 0, 0.0, []
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average, first, seconds, losses = saved["average"], saved["step"], saved["seconds"], saved["losses"]

    began = time.time()
    total = args.steps + FOCUS_STEPS
    bar = tqdm(range(first, total), initial=first, total=total, desc="pretraining", mininterval=5)
    for step in bar:
        focus = step >= args.steps
        since = step - args.steps if focus else step  # the schedule starts anew, and so does the average
        progress = since / (FOCUS_STEPS if focus else args.steps)
        peak = FOCUS_LR if focus else args.lr
        if since == 0:
            average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        rng = np.random.default_rng([args.seed, step])
        torch.manual_seed(int(rng.integers(2**31)))
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1, (since + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * progress))
        chance = corpus.focused if focus else corpus.chance[progress < COMMON_UNTIL]
        index, texts = corpus.draw(args.batch, chance, rng)
        images, tokens, label = corpus.images(index), tokenize(texts), torch.from_numpy(corpus.label[index])
        with torch.autocast("cpu", torch.bfloat16):
            image_features = model.encode_image(images, normalize=True)
            text_features = model.encode_text(tokens, normalize=True)
        loss = contrastive_loss(image_features.float(), text_features.float(), model.logit_scale, label)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (since + 1) / (since + 11))
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                average[name].lerp_(tensor, 1 - decay) if tensor.is_floating_point() else average[name].copy_(tensor)
        if (step + 1) % 50 == 0:
            losses.append((step + 1, round(loss.item(), 4)))
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % 200 == 0 or step + 1 in (args.steps, total):
            state = {
                "run": run,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average,
                "step": step + 1,
            }
            state |= {"seconds": seconds + time.time() - began, "losses": losses}
            torch.save(state, checkpoint.with_suffix(".partial"))
            os.replace(checkpoint.with_suffix(".partial"), checkpoint)
    save_weights(average)
    saved = torch.load(checkpoint, weights_only=True)
    curve = {
        "images": total * args.batch,
        "focus_steps": FOCUS_STEPS,
        "hours": round(saved["seconds"] / 3600, 2),
        "loss": saved["losses"],
    }
    CURVE.write_text(json.dumps(curve) + "\n")


if __name__ == "__main__":
    main()
