"""Ways to tune a backbone on a few images; each returns a `Tuned` and leaves the backbone as it was."""

from radapter_lite.methods.fine_tuning import FineTuningConfig, fine_tune
from radapter_lite.methods.r_adapter import RAdapterConfig, tune_r_adapter

__all__ = ["FineTuningConfig", "RAdapterConfig", "fine_tune", "tune_r_adapter"]
