"""What tuning changed, as one object: for every weight it touched, W(α) = W_org + α ΔW.

α = 0 is the zero-shot model, bit for bit, and α = 1 the tuned one. A method only makes a `Delta`: scaling, applying,
saving and exporting it are written here once, for all methods.
"""

import hashlib
import json
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from radapter_lite.alpha import Alpha, scales
from radapter_lite.backbone import Backbone
from radapter_lite.backbone.sites import attached_models
from radapter_lite.delta_file import read_delta, write_delta, write_tensors
from radapter_lite.files import StrPath
from radapter_lite.version import __version__

State = Mapping[str, Tensor]

KINDS = ("adapter", "difference", "low_rank")


def require_untouched(model: nn.Module) -> None:
    """Raise ValueError for a model that is not as it was loaded: what it learned would fit no model one can load."""
    if model in attached_models:
        raise ValueError("this model already carries adapters: call remove() on their AdapterSet first")
    alpha = record.alpha if (record := _applied.get(model)) else 0.0
    if any(alpha.values() if isinstance(alpha, Mapping) else [alpha]):
        raise ValueError(f"a delta is applied to this model at alpha {alpha}: call restore(model) on the delta first")


@dataclass(frozen=True, eq=False)
class Delta:
    """What tuning changed, for every weight it touched.

    Attributes:
        kind: how `tensors` stand for ΔW:
            "adapter": by nn.Linear or 1x1 nn.Conv2d, W_adp [d, d]; ΔW = W_org W_adp and Δb = b_org W_adp, written
                for row vectors, x W + b (PyTorch keeps W transposed).
            "difference": by weight, ΔW itself, as full fine-tuning leaves it.
            "low_rank": by weight, its name + ".B" [out, r] and + ".A" [r, in]; ΔW = B A in PyTorch's layout.
            In each, a tensor that has the very name of a weight is its ΔW: one delta may mix adapters with differences.
        tensors: see kind.
        meta: backbone, pretrained, prompts, method, settings, versions, and the fingerprint of the original weights.

    Source: Kim et al. 2024, re-parameterization and re-scaling; Wortsman et al. 2022 (WiSE-FT) for differences.
    """

    kind: str
    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = f"{', '.join(KINDS)} are known: what a method without a delta learned is read by load_tuned"
            raise ValueError(f"a delta of kind {self.kind!r} where {known}")

    # --- making one ---

    @classmethod
    def from_adapters(cls, original: State, matrices: State, **about: Any) -> "Delta":
        """Return the delta of linear adapters, from the untuned model's state dict.

        The matrices are W_adp [d, d] by the dotted name of the layer before it, and ΔW by that of a weight; `about`
        is noted in meta: backbone (a Backbone), method (its name) and settings (JSON).
        """
        return cls._make("adapter", original, matrices, **about)

    @classmethod
    def from_difference(cls, before: State, after: nn.Module, **about: Any) -> "Delta":
        """Return the delta between two states of one model; weights that did not change are left out.

        `before` is a copy of the state dict from before tuning (`copy.deepcopy(model.state_dict())`), and `about` as in
        `from_adapters`. Raises ValueError if it shares its memory with the tuned model, or has other weights than it.
        """
        now = after.state_dict()
        shapes = [{name: tensor.shape for name, tensor in state.items()} for state in (before, now)]
        if odd := sorted(name for name, _ in shapes[0].items() ^ shapes[1].items()):
            raise ValueError(f"the two states are not of one model: they differ in the shape of {odd[0]}")
        if any(before[name].data_ptr() == now[name].data_ptr() != 0 for name in now):
            raise ValueError("before is the tuned model's own memory: take a copy.deepcopy before tuning")
        floats = [name for name in now if now[name].is_floating_point()]
        changes = {name: now[name].detach() - before[name].to(now[name].device) for name in floats}
        changed = {name: change for name, change in changes.items() if change.any()}
        return cls._make("difference", before, changed, **about)

    @classmethod
    def from_low_rank(
        cls, original: State, factors: Mapping[str, tuple[Tensor, Tensor]], changes: State | None = None, **about: Any
    ) -> "Delta":
        """Return the delta of low-rank updates such as LoRA's.

        The factors are (B [out, r], A [r, in]) by the name of the weight, any scale multiplied in; changes are ΔW of
        other weights, by name; all else is as in `from_adapters`.
        """
        tensors = dict(changes or {})
        for name, (b, a) in factors.items():
            tensors |= {f"{name}.B": b, f"{name}.A": a}
        return cls._make("low_rank", original, tensors, **about)

    @classmethod
    def _make(cls, kind: str, original: State, tensors: Mapping[str, Tensor], **about: Any) -> "Delta":
        delta = cls(kind, {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, describe(**about))
        delta._check_fit(original)
        delta.meta["fingerprint"] = fingerprint(original, delta.touched(original))
        return delta

    # --- W(α) ---

    def apply(self, model: nn.Module, alpha: Alpha) -> None:
        """Set the model's weights to W_org + α ΔW, in place.

        Always from the originals, which are kept until `restore`: deltas do not add up. The parameters stay the same
        objects. `alpha` is one number in [0, 1], or numbers by encoder and layer, as {"image": 0.5, "image.3": 1.0}:
        see `alpha.scales`. Raises ValueError for another, for a model with other weights than those the delta was made
        on, or for one that adapters are still attached to.
        """
        record, state = _applied.get(model), model.state_dict()
        scale = scales(alpha, self.touched(state))
        if model in attached_models:
            raise ValueError("adapters are still attached to this model: call remove() on their AdapterSet first")
        if record is None or record.delta is not self:
            originals = state | record.originals if record else state
            self._check_fit(originals)
            require_weights(self.meta, originals, self.touched(state), "the delta was made on")
            self.restore(model)  # the state dict shares the model's memory, so it holds the originals from here on
            names = self.touched(state)
            changes = {name: self._change(name, state[name]) for name in names}
            record = _applied[model] = _Applied(self, {name: state[name].clone() for name in names}, changes)
        record.alpha = alpha
        with torch.no_grad():
            for name, original in record.originals.items():
                factor = scale(name)
                state[name].copy_(torch.add(original, record.changes[name], alpha=factor) if factor else original)

    def restore(self, model: nn.Module) -> None:
        """Give the model its original weights back, exactly, whichever delta was applied, if any was."""
        if record := _applied.pop(model, None):
            model.load_state_dict(record.originals, strict=False)

    @contextmanager
    def applied(self, model: nn.Module, alpha: Alpha) -> Iterator[nn.Module]:
        """Apply for the length of a with block; what was there before comes back, also after an error."""
        before, alpha_before = (record.delta, record.alpha) if (record := _applied.get(model)) else (self, None)
        self.apply(model, alpha)
        try:
            yield model
        finally:
            if alpha_before is None:
                self.restore(model)
            else:
                before.apply(model, alpha_before)

    def touched(self, state: State) -> list[str]:
        """Return the names in a model's state dict of the weights that the delta changes, sorted."""
        return sorted({name for key in self.tensors for name in self._weights(key, state)})

    def _weights(self, key: str, state: State) -> list[str]:
        """The names of the weights that a tensor's key stands for: itself, or a Linear's weight and bias."""
        if self.kind == "low_rank" and key.endswith((".A", ".B")):
            return [key[: -len(".B")]]
        if self.kind == "adapter" and key not in state:
            return [f"{key}.weight", *({f"{key}.bias"} & state.keys())]
        return [key]

    def _change(self, name: str, weight: Tensor) -> Tensor:
        """ΔW of a weight, in its type and on its device; in float32 or wider on the way."""
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        if name in self.tensors:
            change = self.tensors[name].to(wide)
        elif self.kind == "low_rank":
            change = self.tensors[f"{name}.B"].to(wide) @ self.tensors[f"{name}.A"].to(wide)
        else:  # (d, d)ᵀ (d, d_in) for a weight, (d, d)ᵀ (d) for a bias: the transpose of W_org W_adp
            flat = wide if wide.ndim == 1 else wide.flatten(1)
            change = self.tensors[name.rpartition(".")[0]].to(wide).T @ flat
        if weight.ndim == 4:  # a 1x1 convolution's: (d, d_in) -> (d, d_in, 1, 1)
            change = change.view_as(weight)
        return change.to(weight.dtype)

    # --- does it fit? ---

    def _check_fit(self, state: State) -> None:
        """Refuse a model that lacks a weight the delta changes, or has it in another shape."""
        for key, tensor in self.tensors.items():
            name = self._weights(key, state)[0]
            if name not in state:
                raise ValueError(f"this delta changes {name}, which the model lacks: it is for {made_on(self.meta)}")
            try:  # on the meta device there are shapes, and no numbers to multiply
                shape = self._change(name, state[name].to("meta")).shape
            except (RuntimeError, KeyError):  # the factors do not fit each other or the weight, or one is missing
                shape = None
            if shape != state[name].shape:
                told = f"the delta's {key} of shape {tuple(tensor.shape)} does not fit the model's {name} of shape"
                raise ValueError(f"{told} {tuple(state[name].shape)}: it is for {made_on(self.meta)}")

    # --- files ---

    def save(self, path: StrPath) -> None:
        """Write `path`.safetensors (the tensors) and `path`.json (all else). Raises OSError if it cannot be written."""
        write_delta(path, self.tensors, {"kind": self.kind} | self.meta)

    @classmethod
    def load(cls, path: StrPath) -> "Delta":
        """Read what `save` wrote. Raises what `read_delta` raises, and ValueError for a kind that is not known."""
        tensors, about = read_delta(path)
        return cls(about.pop("kind"), tensors, about)

    def export(self, model: nn.Module, path: StrPath, alpha: Alpha = 1.0) -> None:
        """Write the model at α as a plain open_clip state dict, for use without this package.

        `open_clip.create_model(name, pretrained=path)` loads it. open_clip then assumes its default image mean and
        standard deviation: where the backbone has others (SigLIP), give them to `create_model_and_transforms`.
        The model keeps its weights; alpha is as in `apply`. Raises ValueError for a path not ending in .safetensors.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"{path} must end in .safetensors, by which open_clip knows how to read it")
        with self.applied(model, alpha):
            write_tensors(path, model.state_dict(), {})


@dataclass(eq=False)
class _Applied:
    """What a model had before a delta was put into it."""

    delta: Delta
    originals: dict[str, Tensor]
    changes: dict[str, Tensor]
    alpha: Alpha = 0.0


_applied: "weakref.WeakKeyDictionary[nn.Module, _Applied]" = weakref.WeakKeyDictionary()


def describe(
    backbone: Backbone | None = None, method: str = "", settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What is noted of a tuning beside its tensors: the backbone and its prompts, the method, settings and versions."""
    try:
        settings = json.loads(json.dumps(dict(settings or {})))  # as they will be read back from a file
    except TypeError as error:
        raise ValueError(f"settings must be JSON, of numbers, texts, lists and dicts ({error})") from error
    own = (backbone.name, backbone.pretrained, list(backbone.prompts)) if backbone else (None, None, None)
    versions = {"radapter_lite": __version__, "open_clip": open_clip.__version__, "torch": str(torch.__version__)}
    about = dict(zip(("backbone", "pretrained", "prompts"), own, strict=True))
    return about | {"method": method, "settings": settings, "versions": versions}


def made_on(meta: Mapping[str, Any]) -> str:
    """The backbone of `describe`, in words."""
    if meta.get("backbone") is None:
        return "a model that was not named when it was made"
    return f"load_clip({meta['backbone']!r}, pretrained={meta['pretrained']!r})"


def require_weights(meta: Mapping[str, Any], state: State, names: Iterable[str], what: str) -> None:
    """Raise ValueError for a model, by its state dict, whose weights of these names are not the ones noted in meta."""
    if meta.get("fingerprint") not in (None, fingerprint(state, names)):
        told = f"this model's weights are not the ones {what}: it is for {made_on(meta)}"
        raise ValueError(f"{told}, loaded afresh, without training or merging")


def fingerprint(state: State, names: Iterable[str]) -> str:
    """SHA-256 over names, shapes and values (as float32) of some weights."""
    digest = hashlib.sha256()
    for name in names:
        values = state[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
