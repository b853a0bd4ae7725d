"""What a method is to the rest of the kit: a name, a function that tunes, settings, and what the search tries for it.

    @register("my method", MyConfig(), grid=(1e-3, 2e-3, 4e-3))
    def my_method(backbone, task, config, train):
        history = train(loss, parameters, head=head)
        return Tuned(delta, history, count)

From then on there are `my_method(backbone, images)` and `tune(backbone, images, "my method")`.

Its `train` is the loop, with all that is not the method's own filled in.
"""

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, wraps
from typing import Any

import pandas as pd
from torch import Tensor, nn

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.delta import Delta, describe, fingerprint, require_untouched
from radapter_lite.delta_file import read_delta
from radapter_lite.encoding import readable, text_features
from radapter_lite.files import StrPath
from radapter_lite.methods.tricks import with_tricks
from radapter_lite.processes import asks_for_shards
from radapter_lite.results import load_results
from radapter_lite.settings import Above0, Settings, by_name, from_json, with_settings
from radapter_lite.tasks import Batch, Task
from radapter_lite.training import Loss, Parameters, TrainingConfig, train
from radapter_lite.tuned import POINT, Answer, Tuned

# What all methods share on PictoCLIP: batches of 64, as many epochs, chosen for 48 to 252 steps on PictoShift.
LOOP = TrainingConfig(batch_size=64, warmup_steps=20, precision="bfloat16")
EPOCHS = {1: 24, 2: 20, 4: 16, 8: 14, 16: 12, 320: 3}  # by shots
# Elsewhere sets are small: these are R-Adapter's settings for its eleven small sets, at half the epochs and without the
# 500 steps of warm-up, which may be more than there are.
ADAPTERS_ELSEWHERE = {"epochs": 50, "batch_size": 32, "lr": 5e-4, "warmup_steps": 0, "precision": "float32"}
PROMPTS_ELSEWHERE = ADAPTERS_ELSEWHERE | {"init_text": "a photo of a"}
WEIGHTS_ELSEWHERE = ADAPTERS_ELSEWHERE | {"epochs": 10, "lr": 1e-5, "warmup_steps": 10}

METHODS: dict[str, "Method"] = {}
_results = cache(load_results)


@dataclass(frozen=True)
class LossConfig(Settings):
    """What the settings of a method that minimizes a loss begin with: the loop's, and τ of the loss, which is fixed."""

    training: TrainingConfig = LOOP
    temperature: Above0 = 0.01


@dataclass(frozen=True)
class Train:
    """`training.train` with the task's batches, the method's settings, its name and its checkpoint filled in.

    Attributes:
        run: `about` and `checkpoint`, as `training.train` takes them.
        backbone: whose model the loss calls; a method that trains a copy puts that here.
        head: the task's zero-shot text features [T, D], where a trick asks for them.
    """

    batches: Iterable[Batch]
    config: TrainingConfig
    run: dict[str, Any]
    backbone: Backbone
    head: Tensor | None = None

    def __call__(
        self, loss: Loss, parameters: Parameters, *, after_step: Callable[[], None] = lambda: None, **state: nn.Module
    ) -> pd.DataFrame:
        """Minimize the loss; `state` are the modules that change, by name. Returns the history."""
        if asks_for_shards() and not hasattr(self.backbone.model, "reshard"):  # as FSDP's have
            what = f"{self.run['about']['method']} does not train on a backbone in shards"
            raise ValueError(f"{what}: choose R-Adapter, or a configuration of Accelerate without FSDP")
        loss = with_tricks(loss, self.backbone, self.config, self.head)
        return train(self.batches, loss, parameters, self.config, state=state, after_step=after_step, **self.run)


def trainer(name: str, backbone: Backbone, task: Task, config: Any, checkpoint: StrPath | None = None) -> Train:
    """What a method of this name trains with; its configuration's `training` is of the loop, which may be None."""
    loop = getattr(config, "training", None) or TrainingConfig()
    images = task.images
    files = hashlib.sha256("\n".join(images.table["file"]).encode()).hexdigest()[:12]
    about: dict[str, Any] = {"method": name, "data": images.name, "images": len(images), "files": files}
    about |= {"backbone": backbone.name, "pretrained": backbone.pretrained, "prompts": backbone.prompts}
    about |= {key: value for key, value in by_name(config).items() if key not in by_name(loop)}
    head = text_features(backbone, task.texts(backbone)) if loop.r_drop else None
    return Train(task.batches(backbone, loop), loop, {"about": about, "checkpoint": checkpoint}, backbone, head)


@dataclass(frozen=True)
class Method:
    """A method as `tune`, the benches and the figures know it.

    Attributes:
        name: in code, tables and figures.
        function: what tunes: backbone, task, settings and a `Train` to a `Tuned`.
        config, elsewhere: its settings on PictoCLIP, but for what was searched, and the papers' on other backbones.
        searched: the one setting that the search chooses.
        grid: the three values the search begins with, each as many times the one before it; () for no search.
        answer, slides: how it answers with tensors of its own, None for a delta; and whether they do at every α.
    """

    name: str
    function: Callable[[Backbone, Task, Any, Train], Tuned]
    config: Any
    searched: str = "lr"
    grid: tuple[float, ...] = ()
    elsewhere: Mapping[str, Any] = field(default_factory=dict)
    answer: Answer | None = None
    slides: bool = False

    @property
    def has_alpha(self) -> bool:
        """Whether it gives a curve along α, or a point."""
        return self.slides or self.answer is None

    @property
    def trains(self) -> bool:
        """Whether it learns by gradient, in epochs."""
        return getattr(self.config, "training", None) is not None

    def tune(
        self,
        backbone: Backbone,
        images: ImageSet | Task,
        config: Any = None,
        *,
        checkpoint: StrPath | None = None,
        **settings: Any,
    ) -> Tuned:
        """Tune a backbone on some images, or on a task; the backbone is afterwards as it was.

        `config` are all of its settings, the recommended ones if left out, and `settings` some by name, over those; the
        checkpoint is a file that an interrupted run goes on from. Raises ValueError for an unknown setting and a model
        that carries adapters or a delta, TypeError for settings of another method, and what the method and `train` do.
        """
        require_untouched(backbone.model)
        task = readable(backbone, images)
        if config is None:
            counts = task.images.table["class"].value_counts()  # captions without classes are all of one
            shots = int(counts.max()) if len(counts) > 1 else len(task.images) // len(task.names)
            config = recommended(self.name, backbone, shots, id_domain=task.images.id_domain)
        config = with_settings(config, settings)
        if type(config) is not type(self.config):
            expected, found = type(self.config).__name__, type(config).__name__
            raise TypeError(f"the settings of {self.name} are a {expected}, not a {found}")
        tuned = self.function(backbone, task, config, trainer(self.name, backbone, task, config, checkpoint))
        settings, about = asdict(config), dict[str, Any]()
        if isinstance(tuned.learned, Delta):
            settings = tuned.learned.meta["settings"] | settings
        else:
            state = backbone.model.state_dict()
            about = {"texts": list(task.names), "fingerprint": fingerprint(state, state)}
        about |= describe(backbone, self.name, settings) | {"trained_parameters": tuned.trained_parameters}
        known = {"method": self.name, "config": config, "answer": self.answer, "slides": self.slides}
        return replace(tuned.with_meta(**about), **known)


def register(name: str, config: Any, **about: Any) -> Callable[[Callable[..., Tuned]], Callable[..., Tuned]]:
    """A decorator that makes a function a method of the kit; `about` are those of `Method`'s attributes that follow.

    The function is then called as `Method.tune` is. It may be registered under several names, with other settings each.
    Raises ValueError for a name that is another method's.
    """

    def add(function: Callable[..., Tuned]) -> Callable[..., Tuned]:
        own = inspect.unwrap(function)
        if name in METHODS and METHODS[name].function.__qualname__ != own.__qualname__:
            raise ValueError(f"{name} is a method of the kit already: register yours under another name")
        METHODS[name] = method = Method(name, own, config, **about)

        @wraps(own)
        def call(*arguments: Any, **options: Any) -> Tuned:
            return method.tune(*arguments, **options)

        call.__signature__ = inspect.signature(method.tune)  # type: ignore[attr-defined]
        return call

    return add


def tune(
    backbone: Backbone, images: ImageSet | Task, method: str = "R-Adapter", config: Any = None, **settings: Any
) -> Tuned:
    """Tune a backbone on some images, or on a task, by any method of the kit, as tune(clip, images, "LoRA", rank=8).

    All but the method, one of `METHODS`, is as in `Method.tune`; so is `checkpoint`, which may stand among the
    settings. Raises ValueError for another method, and what that raises.
    """
    return find_method(method).tune(backbone, images, config, **settings)


def load_tuned(path: StrPath) -> Tuned:
    """Read what `Tuned.save` wrote.

    Raises what `read_delta` raises, and ValueError for tensors of a method that this kit does not have.
    """
    tensors, about = read_delta(path)
    kind, name = about.pop("kind"), about.get("method", "")
    learned = tensors if kind == POINT else Delta(kind, tensors, dict(about))
    tuned = Tuned(learned, pd.DataFrame(), about.get("trained_parameters", 0), name, meta=about)
    if method := METHODS.get(name):
        config = from_json(type(method.config), about.get("settings", {}))
        return replace(tuned, config=config, answer=method.answer, slides=method.slides)
    if kind == POINT:
        raise ValueError(f"{path} was made by {name!r}, which is no method here: register it before loading")
    return tuned


def find_method(name: str) -> Method:
    """The method of a name. Raises ValueError naming those there are."""
    if name not in METHODS:
        raise ValueError(f"{name} is no method of this kit; there are {', '.join(METHODS)}")
    return METHODS[name]


def recommended(method: str, backbone: Backbone, shots: int = 16, seed: int = 0, id_domain: str = "outline") -> Any:
    """The settings we recommend for a method, a backbone and a number of shots.

    For PictoCLIP they are the best of those that `radapter-lite bench search` tried on ID validation images alone, of
    "camera" where anything but PictoShift's "outline" is tuned on. For other backbones they are the paper's settings
    for small sets for R-Adapter, else usual small learning rates, untuned. Raises ValueError for an unknown method.
    """
    known = find_method(method)
    settings = dict(known.elsewhere)
    if backbone.search is not None:
        settings = searched(method, shots, backbone.search, id_domain)
        settings |= {"epochs": epochs(shots)} if known.trains else {}
    return for_backbone(method, backbone, settings | ({"seed": seed} if known.trains else {}))


def for_backbone(method: str, backbone: Backbone, settings: Mapping[str, Any]) -> Any:
    """A method's configuration with some settings, and the backbone's own temperature if it has one to set.

    The papers' τ = 0.01 is that of their CLIP; a model whose own is higher would be far too sure of itself at it.
    """
    config = METHODS[method].config
    own = {"temperature": backbone.temperature} if hasattr(config, "temperature") else {}
    return with_settings(config, own | dict(settings))


def epochs(shots: int) -> int:
    """Passes over the images for a number of shots, from `EPOCHS`: those of the nearest number in it."""
    return EPOCHS[_nearest(shots, EPOCHS)]


def _nearest(shots: int, known: Iterable[int]) -> int:
    return min(known, key=lambda k: (abs(math.log2(k / max(shots, 1))), -k))


def searched(method: str, shots: int, search: str = "search", id_domain: str = "outline") -> dict[str, Any]:
    """The best settings that a search found, at the nearest number of shots, the larger of two; {} if it tried none."""
    for place in ("outline", "camera") if id_domain == "outline" else ("camera", "outline"):
        if len(own := _results(search, id_domain=place).query("method == @method")):
            rows = own[own["shots"] == _nearest(shots, own["shots"].unique())]
            best = rows.loc[rows["validation"].idxmax()]
            return {best["setting"]: float(best["value"])}
    return {}
