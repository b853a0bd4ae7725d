"""`radapter-lite export`: the tuned model as a folder that open_clip opens by itself, and proof that it does."""

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from radapter_lite.commands import Commands, options

if TYPE_CHECKING:
    from radapter_lite.backbone import Backbone

TOLERANCE = 1e-5  # of unit features: the same weights, added up in another order at most


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="hand the tuned model to people who have open_clip alone",
        description="Write a folder that open_clip opens without this package: the weights with the delta at alpha in "
        "them, the architecture, the image transform and the tokenizer. It is the layout of models on the Hugging Face "
        "hub, too. Before the folder appears, open_clip has loaded it and given the same features.",
        epilog="example: radapter-lite export out/photos/tuned --alpha 0.5 --out my_clip",
    )
    options.add_tuned(parser)
    options.add_alpha(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder that is not there yet")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    import open_clip

    from radapter_lite.files import make_folder

    alpha, out = options.parse_alpha(arguments.alpha), arguments.out
    if out.exists():
        raise ValueError(f"{out} is there already: name another folder, or remove it")
    tuned, backbone = options.load_tuned(arguments.tuned, arguments, options.device(arguments))
    delta = tuned.delta  # a method without one is refused here
    config = open_clip.get_model_config(backbone.name)
    if config is None:
        raise ValueError(
            f"{backbone.name} is no architecture of open_clip, which could not open it alone: use merge, whose file "
            f'load_clip("{backbone.name}", pretrained=FILE) opens'
        )
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    make_folder(partial)
    try:
        with delta.applied(backbone.model, alpha):
            _write(backbone, config, partial)
            error = _difference(backbone, partial)
        if not error < TOLERANCE:
            raise ValueError(
                f"open_clip gives features that differ by {error:.1g} from the tuned model's for {backbone.name}: "
                f"nothing was exported; merge writes the weights alone"
            )
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(
        f"{out} holds {backbone.name} at alpha {' '.join(arguments.alpha)}; open_clip gives the same features from it:"
    )
    print(f'  model, preprocess = open_clip.create_model_from_pretrained("local-dir:{out}")')
    print(f'  tokenizer = open_clip.get_tokenizer("local-dir:{out}")')
    return 0


def _write(backbone: "Backbone", config: dict, folder: Path) -> None:
    """The files open_clip looks for in a folder or a repository of the hub."""
    import open_clip
    from open_clip.push_to_hf_hub import save_config_for_hf

    from radapter_lite.delta_file import write_tensors

    write_tensors(folder / "open_clip_model.safetensors", backbone.model.state_dict(), {})
    save_config_for_hf(backbone.model, folder / "open_clip_config.json", config)
    tokenizer = open_clip.get_tokenizer(backbone.name)
    if hasattr(tokenizer, "save_pretrained"):  # CLIP's own has nothing to save: it comes with open_clip
        tokenizer.save_pretrained(folder)


def _difference(backbone: "Backbone", folder: Path) -> float:
    """The largest difference of unit features between the model as it stands and what open_clip alone loads."""
    import numpy as np
    import open_clip
    import torch
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (2, 90, 120, 3), dtype=np.uint8)
    pictures, texts = [Image.fromarray(each) for each in noise], ["a photo of a cat", "a red key"]
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    @torch.no_grad()
    def features(model, preprocess, tokenizer):  # type: ignore[no-untyped-def]
        pixels = torch.stack([preprocess(each) for each in pictures]).to(backbone.device)
        image = model.encode_image(pixels, normalize=True)
        return torch.cat([image, model.encode_text(tokenizer(texts).to(backbone.device), normalize=True)])

    there = features(model.to(backbone.device).eval(), preprocess, tokenizer)
    here = features(backbone.model, backbone.preprocess, backbone.tokenizer)
    return (there - here).abs().max().item()
