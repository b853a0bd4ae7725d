"""The settings we recommend, chosen on ID validation images alone.

For PictoCLIP they come from the runs that `assets/results/search.csv` keeps, on 16 shots of a seed that no reported
run uses. R-Adapter's were made on PictoCLIP with 600 focused pretraining steps in place of the shipped 400.
`radapter-lite bench --search` repeats the search. For other backbones these are the paper's few-shot settings, and
for fine-tuning the usual small learning rate, untuned.
"""

from radapter_lite.adapter import AdapterConfig
from radapter_lite.backbones import Backbone
from radapter_lite.methods.fine_tuning import FineTuningConfig
from radapter_lite.methods.r_adapter import RAdapterConfig
from radapter_lite.training import TrainingConfig


def recommended_r_adapter(backbone: Backbone, shots: int = 16, seed: int = 0) -> RAdapterConfig:
    """R-Adapter's settings for a backbone and a number of shots."""
    if backbone.name != "picto":
        training = TrainingConfig(epochs=50, batch_size=256, lr=5e-4, seed=seed)
        return RAdapterConfig(AdapterConfig(rank=4, drop_prob=0.2, momentum=0.999), training)
    training = TrainingConfig(epochs=_epochs(30, shots), batch_size=64, lr=3e-3, warmup_steps=20, seed=seed)
    return RAdapterConfig(AdapterConfig(drop_prob=0.1, momentum=0.98), training)


def recommended_fine_tuning(backbone: Backbone, shots: int = 16, seed: int = 0) -> FineTuningConfig:
    """Full fine-tuning's settings for a backbone and a number of shots."""
    if backbone.name != "picto":
        return FineTuningConfig(
            TrainingConfig(epochs=10, batch_size=256, lr=1e-5, warmup_steps=50, seed=seed)
        )
    training = TrainingConfig(epochs=_epochs(10, shots), batch_size=64, lr=5e-4, warmup_steps=20, seed=seed)
    return FineTuningConfig(training)


def _epochs(at_16_shots: int, shots: int) -> int:
    """More passes where there are fewer images: the number of steps falls with the root of the shots."""
    return round(at_16_shots * (16 / min(shots, 16)) ** 0.5)
