"""Every method of the kit under one interface: its name, the function that tunes, and what the search tries for it.

All train on the same images, in batches of 64, for as many epochs (`EPOCHS`), their similarities divided by the
temperature that the backbone was pretrained with. Each gets a search of the same size (`bench.search`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from radapter_lite.adapter import AdapterConfig
from radapter_lite.methods.adaptformer import AdaptFormerConfig, adaptformer
from radapter_lite.methods.clip_adapter import ClipAdapterConfig, clip_adapter
from radapter_lite.methods.coop import CoOpConfig, coop
from radapter_lite.methods.fine_tuning import FineTuningConfig, fine_tune
from radapter_lite.methods.flyp import FLYPConfig, flyp
from radapter_lite.methods.houlsby import HoulsbyConfig, houlsby
from radapter_lite.methods.linear_probe import LinearProbeConfig, linear_probe
from radapter_lite.methods.lora import LoRAConfig, lora
from radapter_lite.methods.lp_ft import LpFtConfig, lp_ft
from radapter_lite.methods.p_tuning import PTuningConfig, p_tuning
from radapter_lite.methods.prefix import PrefixConfig, prefix
from radapter_lite.methods.r_adapter import RAdapterConfig, tune_r_adapter
from radapter_lite.methods.tip_adapter import TipAdapterConfig, tip_adapter
from radapter_lite.training import TrainingConfig, Tuned, TunedPoint

EPOCHS = {1: 24, 2: 20, 4: 16, 8: 14, 16: 12}  # by shots; of PictoShift, 48 to 252 steps

DROP = 0.1  # p; the paper's 0.2 costs ID accuracy in runs as short as these
LOOP = TrainingConfig(batch_size=64, warmup_steps=20, precision="bfloat16")
# Elsewhere sets are small: the papers' batch of 256 and momentum of 0.999 would make 50 steps whose average still
# holds 95% of its zero start. These are R-Adapter's settings for its eleven small sets, at half the epochs and without
# the 500 steps of warm-up, which may be more than there are.
ADAPTERS_ELSEWHERE = {"epochs": 50, "batch_size": 32, "lr": 5e-4, "warmup_steps": 0, "precision": "float32"}
PUBLISHED = ADAPTERS_ELSEWHERE | {
    "rank": 4,
    "drop_prob": 0.2,
    "momentum": 0.9,
    "margin": 0.1,
    "smoothing": 0.0,
    "whitening": None,
}
PROMPTS_ELSEWHERE = ADAPTERS_ELSEWHERE | {"init_text": "a photo of a"}
WEIGHTS_ELSEWHERE = ADAPTERS_ELSEWHERE | {"epochs": 10, "lr": 1e-5, "warmup_steps": 10}


@dataclass(frozen=True)
class Method:
    """A method as the benches know it.

    Attributes:
        tune: backbone, images and configuration to what was learned; takes `checkpoint=` too.
        config: what the search starts from on PictoCLIP.
        searched: the one setting that the search chooses.
        grid: the three values it begins with, each as many times the one before it.
        elsewhere: settings for other backbones, from the papers.
        has_alpha: whether it gives a curve along α, or a point.
    """

    tune: Callable[..., Tuned | TunedPoint]
    config: Any
    searched: str
    grid: tuple[float, float, float]
    elsewhere: dict[str, Any] = field(default_factory=dict)
    has_alpha: bool = False

    @property
    def trains(self) -> bool:
        """Whether it learns by gradient, in epochs."""
        return getattr(self.config, "training", None) is not None


METHODS: dict[str, Method] = {
    "R-Adapter": Method(
        tune_r_adapter,
        RAdapterConfig(AdapterConfig(drop_prob=DROP, momentum=0.98, whitening=0.01), LOOP),
        "lr",
        (3e-3, 6e-3, 1.2e-2),
        PUBLISHED,
        has_alpha=True,
    ),
    "R-Adapter, rank 4": Method(
        tune_r_adapter,
        RAdapterConfig(AdapterConfig(rank=4, drop_prob=DROP, momentum=0.98, whitening=0.01), LOOP),
        "lr",
        (6e-3, 1.2e-2, 2.4e-2),
        PUBLISHED,
        has_alpha=True,
    ),
    "R-Adapter, unwhitened": Method(  # the paper's form; see whitening.py
        tune_r_adapter,
        RAdapterConfig(AdapterConfig(drop_prob=DROP, momentum=0.98), LOOP),
        "lr",
        (1e-3, 2e-3, 4e-3),
        PUBLISHED,
        has_alpha=True,
    ),
    "linear adapter": Method(  # the paper's E0
        tune_r_adapter,
        RAdapterConfig(AdapterConfig(drop_prob=0.0, momentum=0.0), LOOP),
        "lr",
        (1e-3, 2e-3, 4e-3),
        ADAPTERS_ELSEWHERE,
        has_alpha=True,
    ),
    "FLYP": Method(flyp, FLYPConfig(LOOP), "lr", (5e-4, 1e-3, 2e-3), WEIGHTS_ELSEWHERE, has_alpha=True),
    "fine-tuning": Method(
        fine_tune, FineTuningConfig(LOOP), "lr", (5e-4, 1e-3, 2e-3), WEIGHTS_ELSEWHERE, has_alpha=True
    ),
    "LoRA": Method(lora, LoRAConfig(LOOP), "lr", (5e-3, 1e-2, 2e-2), ADAPTERS_ELSEWHERE, has_alpha=True),
    "Houlsby adapter": Method(houlsby, HoulsbyConfig(LOOP), "lr", (5e-3, 1e-2, 2e-2), ADAPTERS_ELSEWHERE),
    "AdaptFormer": Method(
        adaptformer, AdaptFormerConfig(LOOP), "lr", (2.5e-2, 5e-2, 1e-1), ADAPTERS_ELSEWHERE
    ),
    "LP-FT": Method(lp_ft, LpFtConfig(LOOP), "lr", (2.5e-4, 5e-4, 1e-3), WEIGHTS_ELSEWHERE),
    "linear probe": Method(linear_probe, LinearProbeConfig(), "C", (1.0, 10.0, 100.0)),
    "CLIP-Adapter": Method(
        clip_adapter, ClipAdapterConfig(LOOP), "lr", (1e-2, 3e-2, 9e-2), ADAPTERS_ELSEWHERE
    ),
    "Tip-Adapter": Method(
        tip_adapter,
        TipAdapterConfig(beta=10.0),
        "cache_ratio",
        (5.0, 10.0, 20.0),
        {"cache_ratio": 1.0, "beta": 5.5},
    ),
    "Tip-Adapter-F": Method(
        tip_adapter,
        TipAdapterConfig(cache_ratio=10.0, beta=10.0, training=LOOP),
        "lr",
        (3e-4, 1e-3, 3e-3),
        ADAPTERS_ELSEWHERE | {"cache_ratio": 1.0, "beta": 5.5},
    ),
    "CoOp": Method(
        coop, CoOpConfig(LOOP, init_text="an icon of a"), "lr", (3e-4, 1e-3, 3e-3), PROMPTS_ELSEWHERE
    ),
    "prefix tuning": Method(prefix, PrefixConfig(LOOP), "lr", (3e-3, 1e-2, 3e-2), ADAPTERS_ELSEWHERE),
    "P-tuning": Method(
        p_tuning,
        PTuningConfig(LOOP, init_text="an icon of a"),
        "lr",
        (1e-4, 3e-4, 1e-3),
        PROMPTS_ELSEWHERE,
    ),
}
