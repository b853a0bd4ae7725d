"""One door to every backbone: `load_clip(name)` gives the model, its tokenizer and its image transform.

"picto" is embedded and needs no network; other names are open_clip's. Files of others are read as tensors, not as code.
"""

import copy
import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import text_global_pool
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from radapter_lite.backbone import pictoclip
from radapter_lite.backbone.hub import from_hub
from radapter_lite.backbone.sites import TOWERS, find_blocks
from radapter_lite.files import StrPath
from radapter_lite.processes import asks_for_shards, count
from radapter_lite.seeding import seeded

CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
HUB_PREFIX = "hf-hub:"
# What stands around a class's name, for CLIPs that learned from photographs mostly, as nearly all did.
PHOTO_KINDS = ("a photo", "a bad photo", "a drawing", "a close-up photo", "a rendering", "an image")
PHOTOS = tuple(f"{kind} of a {{}}." for kind in PHOTO_KINDS)


@dataclass(frozen=True)
class Backbone:
    """A CLIP-like model, and all that depends on which one it is.

    Attributes:
        model: an open_clip CLIP, CustomTextCLIP or CoCa in eval mode.
        tokenizer: list of texts -> token ids [texts, context length].
        preprocess: PIL image -> normalized tensor [3, H, W], without augmentation.
        name: what `load_clip` was asked for: "picto", "ViT-B-32", "hf-hub:...".
        pretrained: its weights' origin: "picto", a tag, "hf-hub", "random", or a checkpoint's file name.
        prompts: what class names are put into; a class's vector is their mean.
        search: the saved results of a search for settings on this model; None where the papers' are recommended.
    """

    model: nn.Module
    tokenizer: Callable[[list[str]], Tensor]
    preprocess: Callable[[Image.Image], Tensor]
    name: str
    pretrained: str
    prompts: tuple[str, ...] = PHOTOS
    search: str | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def temperature(self) -> float:
        """τ that the model was pretrained with: cosine similarities divided by it are its logits. 0.01 for CLIP's."""
        return 1 / self.model.logit_scale.exp().item()  # type: ignore[operator]

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Unit features [B, D] of preprocessed images [B, 3, H, W]; gradients flow."""
        return self.model.encode_image(pixels.to(self.device), normalize=True)  # type: ignore[operator]

    def encode_texts(self, texts: Sequence[str] | Tensor) -> Tensor:
        """Unit features [B, D] of texts, or of their token ids [B, context length]; gradients flow.

        As the model's own `encode_text` gives them, but up to the longest text alone. Under a causal mask no token sees
        what follows it, and CLIP reads a text's features at its end token: the padding behind changes nothing, and is
        most of the work, for a class name in a prompt has 8 tokens of 77. Towers whose features depend on padding (no
        causal mask, CoCa's class token, SigLIP's last token, Hugging Face's) are given all of it. Nothing of the model
        is swapped meanwhile: threads may share it.
        """
        tokens = texts if isinstance(texts, Tensor) else self.tokenizer(list(texts))
        model: Any = self.model
        tower: Any = getattr(model, "text", model)
        own = "text_" if isinstance(tower, CLIP) else ""
        pool, end = getattr(tower, f"{own}pool_type", ""), getattr(tower, f"{own}eos_id", -1)
        mask, class_token = getattr(tower, "attn_mask", None), getattr(tower, "cls_emb", None)
        known = type(model) in (CLIP, CustomTextCLIP) and pool in ("argmax", "eos")
        if not known or mask is None or class_token is not None:
            return model.encode_text(tokens.to(self.device), normalize=True)
        length = int((tokens if pool == "argmax" else (tokens == end).int()).argmax(-1).max()) + 1
        tokens, dtype = tokens[:, :length].to(self.device), tower.transformer.get_cast_dtype()
        x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)  # (B, l, width)
        x = tower.ln_final(tower.transformer(x, attn_mask=mask[:length, :length]))
        x, projection = text_global_pool(x, tokens, pool, end), tower.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return F.normalize(x, dim=-1)

    def describe(self, classes: Iterable[str]) -> list[list[str]]:
        """Each class's name in every prompt [C][prompts]."""
        return [[prompt.replace("{}", name) for prompt in self.prompts] for name in classes]


def load_clip(
    name: str = "picto",
    pretrained: StrPath | None = None,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    prompts: StrPath | Iterable[str] | None = None,
) -> Backbone:
    """Load a backbone in float32 and eval mode.

    Raises ValueError for an unknown name or tag (the nearest are listed), a checkpoint that does not fit, or a prompt
    without {}; FileNotFoundError for a missing checkpoint or file of prompts; HubError, one too, for weights not there.

    Args:
        name: "picto" (embedded), an open_clip architecture ("ViT-B-32"), or a hub repository ("hf-hub:owner/name").
        pretrained: a tag open_clip publishes for the architecture, the path of a checkpoint (.safetensors, .pt, .pth,
            .bin), or "random". None is enough for "picto" and for hub repositories, which have no "random".
        seed: of the random weights; the global random state is left as it was.
        prompts: what class names are put into: "a chest X-ray of {}", several of them, or a text file with one a
            line; None for those that suit the model's pretraining.
    """
    if not name.startswith(HUB_PREFIX):
        name, names = name.replace("/", "-"), ["picto", *open_clip.list_models()]
        if name not in names:
            where = "open_clip.list_models() lists all, and hf-hub:owner/name takes one from the hub"
            raise ValueError(f"{name} is no open_clip model; the nearest names are {_nearest(name, names)} ({where})")
    tag, checkpoint = _find_weights(name, None if pretrained is None else os.fspath(pretrained))
    label = checkpoint.name if checkpoint else tag or "random"
    usual, search = (pictoclip.PROMPTS, "search") if name == "picto" else (PHOTOS, None)
    prompts = usual if prompts is None else as_prompts(prompts)
    if checkpoint:
        _check_checkpoint(checkpoint)
    with seeded(seed):
        model, tokenizer, preprocess = _build(name, tag)
    if checkpoint:
        try:
            open_clip.load_checkpoint(model, str(checkpoint), strict=True, weights_only=True)
        except (RuntimeError, AssertionError, KeyError, AttributeError) as error:
            found = f"{checkpoint} does not fit {name} ({shorten(str(error), 200, placeholder='...')})"
            raise ValueError(f"{found}: name the architecture it was trained with") from error
    return Backbone(model.to(device).eval(), tokenizer, preprocess, name, label, prompts, search)


@contextmanager
def sharded(backbone: Backbone) -> Iterator[Backbone]:
    """The backbone; or, for processes that Accelerate started with FSDP on, a copy of which each holds a part.

    A block's weights are gathered for its own pass alone, forward and backward, by PyTorch's FSDP2 with the settings
    that Accelerate was given; the whole model waits on the CPU. Raises ValueError for towers that are no Transformers.
    """
    if not asks_for_shards():
        yield backbone
        return
    from accelerate import FullyShardedDataParallelPlugin
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    asked, device = FullyShardedDataParallelPlugin(fsdp_version=2), backbone.device
    model = copy.deepcopy(backbone.model.cpu()).requires_grad_(False)
    settings = {"reshard_after_forward": asked.reshard_after_forward, "offload_policy": asked.cpu_offload}
    settings["mesh"] = init_device_mesh(device.type, (count(),))
    for tower in TOWERS:
        for block in find_blocks(model, tower):
            fully_shard(model.get_submodule(block), **settings)
    scalars = {parameter for parameter in model.parameters() if not parameter.ndim}  # which FSDP refuses to divide
    fully_shard(model, **settings, ignored_params=scalars)
    for method in ("encode_image", "encode_text"):
        register_fsdp_forward_method(model, method)
    try:
        yield replace(backbone, model=model)
    finally:
        backbone.model.to(device)


def as_prompts(prompts: StrPath | Iterable[str]) -> tuple[str, ...]:
    """Prompts from a prompt, from several, or from the path of a text file with one a line.

    A text with {} in it is no path. Raises ValueError for no prompt at all, or one that has not exactly one {}, and
    FileNotFoundError for a path that is no file.
    """
    if isinstance(prompts, os.PathLike) or (isinstance(prompts, str) and "{}" not in prompts):
        path = Path(prompts)
        if not path.is_file():
            told = f"{path} is neither a prompt, which has {{}} where the class name goes"
            raise FileNotFoundError(f"{told}, nor a file of prompts, one a line")
        try:
            prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except ValueError as error:
            raise ValueError(f"{path} is no text file in UTF-8 ({error}): give one with a prompt a line") from error
    found = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    odd = [prompt for prompt in found if not isinstance(prompt, str) or prompt.count("{}") != 1]
    if odd or not found:
        wanted = "texts with one {} where the class name goes, as 'a photo of a {}.'"
        raise ValueError(f"prompts must be {wanted}, not {repr(odd[0]) if odd else 'none at all'}")
    return found


def _find_weights(name: str, source: str | None) -> tuple[str | None, Path | None]:
    """Return (tag, checkpoint); both None means random weights, both given the checkpoint over the tag's."""
    on_hub = name.startswith(HUB_PREFIX)
    own = "hf-hub" if on_hub else "picto" if name == "picto" else None  # the tag that goes without saying
    if source == "random" and not on_hub:
        return None, None
    tags = [own] if own else open_clip.list_pretrained_tags_by_model(name)
    if source is None and own is None:
        known = f"one of {', '.join(tags)}, " if tags else ""
        raise ValueError(f"{name} needs weights: set pretrained to {known}a checkpoint's path, or 'random'")
    if source is None or source in tags:
        return source or own, None
    path = Path(source)
    if path.is_file():  # only the hub knows the architecture of its repositories, and gives it with weights
        return "hf-hub" if on_hub else None, path
    if path.suffix in CHECKPOINT_SUFFIXES or path.parent != Path("."):
        raise FileNotFoundError(f"the checkpoint {source} does not exist: give the path of an existing file")
    if on_hub:
        instead = f"leave pretrained out, or give a checkpoint's path, instead of {source}"
        raise ValueError(f"{name} brings its own weights: {instead}")
    known = f"the nearest tags are {_nearest(source, tags)}" if tags else "it has no published tags"
    raise ValueError(f"{source} is neither a file nor a tag of {name}: {known}, and 'random' always works")


def _nearest(word: str, words: list[str]) -> str:
    by_lower = {each.lower(): each for each in words}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=4, cutoff=0.4)
    return ", ".join([by_lower[match] for match in matches] or words[:4])


def _build(name: str, tag: str | None) -> tuple[nn.Module, Callable[..., Tensor], Callable[..., Tensor]]:
    """Model, tokenizer and evaluation transform, with a tag's weights or, for None, random ones."""
    if name == "picto":
        return pictoclip.load_pictoclip(tag or "random")

    settings: dict[str, Any] = {"pretrained_text": False, "require_pretrained": tag is not None}
    what, alternative = name, "offline, 'picto', the path of a local checkpoint and pretrained='random' work"
    if tag is None:
        # How the published weights want their images, where they agree.
        keys = ("mean", "std", "interpolation", "resize_mode")
        configs = [open_clip.get_pretrained_cfg(name, t) for t in open_clip.list_pretrained_tags_by_model(name)]
        found = [{f"image_{key}": config[key] for key in keys if key in config} for config in configs]
        settings |= found[0] if found and all(each == found[0] for each in found) else {}
        what, alternative = f"the text tower's configuration of {name}", "'picto' and ViT-B-32 work offline"
    elif tag != "hf-hub":
        # Weights trained with QuickGELU work worse, without an error, in an architecture that has GELU.
        theirs, built = open_clip.get_pretrained_cfg(name, tag), open_clip.get_model_config(name)
        quick = theirs.get("quick_gelu") and not built.get("quick_gelu")
        if quick and f"{name}-quickgelu" in open_clip.list_models():
            raise ValueError(f"{tag} of {name} was trained with QuickGELU: load {name}-quickgelu, {tag!r} instead")
        settings["pretrained"], what = tag, f"{name} with weights {tag}"
    model, _, preprocess = from_hub(lambda: open_clip.create_model_and_transforms(name, **settings), what, alternative)
    if tag is None and isinstance(model, CoCa):  # open_clip leaves it as what the memory held before
        projection = model.text_decoder.text_projection
        nn.init.normal_(projection, std=projection.shape[0] ** -0.5)
    return model, partial(tokenize, name), preprocess


@cache
def _tokenizer(name: str) -> Callable[[list[str]], Tensor]:
    alternative = "offline, 'picto' and the models with CLIP's own tokenizer (ViT-B-32, ViT-L-14) work"
    return from_hub(lambda: open_clip.get_tokenizer(name), f"the tokenizer of {name}", alternative)


def tokenize(name: str, texts: list[str]) -> Tensor:
    """Token ids [texts, context length], by a tokenizer made at the first call: SigLIP's and its kin are on the hub."""
    return _tokenizer(name)(texts)


def _check_checkpoint(path: Path) -> None:
    """Refuse a file that is not a plain state dict, before anything is built."""
    if path.suffix not in CHECKPOINT_SUFFIXES:
        raise ValueError(f"{path} is no checkpoint: expected a file ending in {', '.join(CHECKPOINT_SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                return
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): fetch it again") from error
    except Exception as error:  # the unpickler fails in many ways, all of them for the file's sake
        told = f"{path} is refused because it is damaged or holds more than tensors, which could run code"
        raise ValueError(f"{told}: save the model's state dict as .safetensors instead") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict: save model.state_dict() as .safetensors instead")
