"""Every method of the kit under one interface: its name, the function that tunes, and what the search tries for it.

All train on the same images, in batches of 64, for as many epochs (`EPOCHS`). Each gets a search of the same size:
three settings, each for half of those epochs, judged on ID validation images.
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
ADAPTERS_ELSEWHERE = {"epochs": 50, "batch_size": 256, "lr": 5e-4, "warmup_steps": 0, "precision": "float32"}
PROMPTS_ELSEWHERE = ADAPTERS_ELSEWHERE | {"init_text": "a photo of a"}
PUBLISHED = ADAPTERS_ELSEWHERE | {"rank": 4, "drop_prob": 0.2, "momentum": 0.999, "whitening": None}
WEIGHTS_ELSEWHERE = ADAPTERS_ELSEWHERE | {"epochs": 10, "lr": 1e-5, "warmup_steps": 50}


@dataclass(frozen=True)
class Method:
    """A method as the benches know it.

    Attributes:
        tune: backbone, images and configuration to what was learned; takes `checkpoint=` too.
        config: what the search starts from on PictoCLIP.
        grid: the settings it tries.
        elsewhere: settings for other backbones, from the papers.
        has_alpha: whether it gives a curve along α, or a point.
    """

    tune: Callable[..., Tuned | TunedPoint]
    config: Any
    grid: tuple[dict[str, Any], ...]
    elsewhere: dict[str, Any] = field(default_factory=dict)
    has_alpha: bool = False

    @property
    def trains(self) -> bool:
        """Whether it learns by gradient, in epochs."""
        return getattr(self.config, "training", None) is not None


def _rates(*rates: float) -> tuple[dict[str, Any], ...]:
    return tuple({"lr": lr} for lr in rates)


METHODS: dict[str, Method] = {
    "R-Adapter": Method(
        tune_r_adapter,
        RAdapterConfig(AdapterConfig(drop_prob=DROP, momentum=0.98, whitening=0.01), LOOP),
        _rates(3e-3, 6e-3, 1.2e-2),
        PUBLISHED,
        has_alpha=True,
    ),
    "R-Adapter, rank 4": Method(
        tune_r_adapter,
        RAdapterConfig(AdapterConfig(rank=4, drop_prob=DROP, momentum=0.98, whitening=0.01), LOOP),
        _rates(3e-3, 6e-3, 1.2e-2),
        PUBLISHED,
        has_alpha=True,
    ),
    "R-Adapter, unwhitened": Method(  # the paper's form; see whitening.py
        tune_r_adapter,
        RAdapterConfig(AdapterConfig(drop_prob=DROP, momentum=0.98), LOOP),
        _rates(1e-3, 2e-3, 4e-3),
        PUBLISHED,
        has_alpha=True,
    ),
    "linear adapter": Method(  # the paper's E0
        tune_r_adapter,
        RAdapterConfig(AdapterConfig(drop_prob=0.0, momentum=0.0), LOOP),
        _rates(1e-3, 2e-3, 4e-3),
        ADAPTERS_ELSEWHERE,
        has_alpha=True,
    ),
    "FLYP": Method(flyp, FLYPConfig(LOOP), _rates(2e-4, 1e-3, 5e-3), WEIGHTS_ELSEWHERE, has_alpha=True),
    "fine-tuning": Method(
        fine_tune, FineTuningConfig(LOOP), _rates(2e-4, 1e-3, 5e-3), WEIGHTS_ELSEWHERE, has_alpha=True
    ),
    "LoRA": Method(lora, LoRAConfig(LOOP), _rates(5e-3, 1e-2, 2e-2), ADAPTERS_ELSEWHERE, has_alpha=True),
    "Houlsby adapter": Method(houlsby, HoulsbyConfig(LOOP), _rates(3e-3, 1e-2, 3e-2), ADAPTERS_ELSEWHERE),
    "AdaptFormer": Method(adaptformer, AdaptFormerConfig(LOOP), _rates(3e-2, 1e-1, 3e-1), ADAPTERS_ELSEWHERE),
    "LP-FT": Method(lp_ft, LpFtConfig(LOOP), _rates(2e-4, 5e-4, 1e-3), WEIGHTS_ELSEWHERE),
    "linear probe": Method(
        linear_probe, LinearProbeConfig(), tuple({"C": c} for c in (10.0, 100.0, 1000.0)), {}
    ),
    "CLIP-Adapter": Method(
        clip_adapter, ClipAdapterConfig(LOOP), _rates(1e-2, 3e-2, 1e-1), ADAPTERS_ELSEWHERE
    ),
    "Tip-Adapter": Method(
        tip_adapter,
        TipAdapterConfig(),
        tuple(
            {"cache_ratio": ratio, "beta": beta} for ratio, beta in ((10.0, 5.5), (30.0, 10.0), (100.0, 10.0))
        ),
        {"cache_ratio": 1.0, "beta": 5.5},
    ),
    "Tip-Adapter-F": Method(
        tip_adapter, TipAdapterConfig(30.0, 10.0, training=LOOP), _rates(3e-4, 1e-3, 3e-3), ADAPTERS_ELSEWHERE
    ),
    "CoOp": Method(
        coop, CoOpConfig(LOOP, init_text="an icon of a"), _rates(1e-3, 5e-3, 2e-2), PROMPTS_ELSEWHERE
    ),
    "prefix tuning": Method(prefix, PrefixConfig(LOOP), _rates(1e-3, 5e-3, 2e-2), ADAPTERS_ELSEWHERE),
    "P-tuning": Method(
        p_tuning, PTuningConfig(LOOP, init_text="an icon of a"), _rates(1e-4, 3e-4, 1e-3), PROMPTS_ELSEWHERE
    ),
}
