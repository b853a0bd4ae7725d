"""`radapter-lite export`: write the tuned model: one checkpoint, or a folder for people who have open_clip alone.

Put the delta at alpha into the backbone's weights, of the original's shapes and cost. --out NAME.safetensors is a
checkpoint for load_clip(name, pretrained=FILE). Any other --out is a folder that open_clip opens without this package:
weights, architecture, image transform and tokenizer, in the layout of the Hugging Face hub. Before the folder appears,
open_clip has loaded it and given the same features.

example: radapter-lite export out/photos/tuned --alpha image=1 text=0.5 --out my_clip
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from radapter_lite.commands import options

if TYPE_CHECKING:
    from torch import Tensor

    from radapter_lite.backbone import Backbone

TOLERANCE = 1e-5  # of unit features: the same weights, added up in another order at most
PARENTS = [options.TUNED, options.ALPHA]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="*.safetensors, or a folder")


def execute(arguments: argparse.Namespace) -> None:
    from radapter_lite.files import make_folder

    alpha, out = options.parse_alpha(arguments.alpha), arguments.out
    if out.exists():
        raise ValueError(f"{out} is there already: name another, or remove it")
    if out.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        raise ValueError(f"{out} must end in .safetensors, by which open_clip knows how to read it")
    tuned, backbone = options.load_tuned(arguments.tuned, arguments, options.device(arguments))
    delta = tuned.delta  # a method without one is refused here
    what = f"{backbone.name} at alpha {' '.join(arguments.alpha)}"
    if out.suffix == ".safetensors":
        make_folder(out.parent)
        delta.export(backbone.model, out, alpha)
        print(f"{out} holds {what} ({out.stat().st_size / 1e6:.0f} MB):")
        print(f'  load_clip("{backbone.name}", pretrained="{out}")')
    else:
        with delta.applied(backbone.model, alpha):
            _write_folder(backbone, out)
        print(f"{out} holds {what}; open_clip gives the same features from it:")
        print(f'  model, preprocess = open_clip.create_model_from_pretrained("local-dir:{out}")')
        print(f'  tokenizer = open_clip.get_tokenizer("local-dir:{out}")')


def _write_folder(backbone: "Backbone", out: Path) -> None:
    """The model as it stands, as a folder that open_clip opens; nothing is written if its features differ."""
    import open_clip
    from open_clip.push_to_hf_hub import save_config_for_hf

    from radapter_lite.delta_file import write_tensors
    from radapter_lite.files import make_folder

    if (config := open_clip.get_model_config(backbone.name)) is None:
        found = f"{backbone.name} is no architecture of open_clip, which could not open it alone"
        how = f'that ends in .safetensors, which load_clip("{backbone.name}", pretrained=FILE) opens'
        raise ValueError(f"{found}: name a file for --out {how}")
    with TemporaryDirectory(dir=make_folder(out.parent)) as temporary:
        folder = make_folder(Path(temporary, out.name))
        write_tensors(folder / "open_clip_model.safetensors", backbone.model.state_dict(), {})
        save_config_for_hf(backbone.model, folder / "open_clip_config.json", config)
        tokenizer = open_clip.get_tokenizer(backbone.name)
        if hasattr(tokenizer, "save_pretrained"):  # CLIP's own has nothing to save: it comes with open_clip
            tokenizer.save_pretrained(folder)
        model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}", device=backbone.device)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        alone = replace(backbone, model=model.eval(), preprocess=preprocess, tokenizer=tokenizer)
        error = (_some_features(alone) - _some_features(backbone)).abs().max().item()
        if not error < TOLERANCE:
            found = f"open_clip gives features that differ by {error:.1g} from the tuned model's for {backbone.name}"
            raise ValueError(f"{found}: nothing was exported; --out NAME.safetensors writes the weights alone")
        folder.replace(out)


def _some_features(backbone: "Backbone") -> "Tensor":
    """Unit features [4, D] of a gradient, once upright and once lying, and of two texts."""
    import torch
    from PIL import Image

    ramp = Image.linear_gradient("L").convert("RGB")
    pixels = torch.stack([backbone.preprocess(ramp.resize(size)) for size in ((90, 120), (120, 90))])
    with torch.no_grad():
        return torch.cat([backbone.encode_images(pixels), backbone.encode_texts(["a black cat", "a red key"])])
