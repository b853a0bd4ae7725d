"""`radapter-lite merge`: the delta at one α put into the backbone's weights, as one checkpoint file."""

import argparse
from pathlib import Path

from radapter_lite.commands import Commands, options


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "merge",
        help="put a delta into its backbone's weights, as a checkpoint",
        description="Write the backbone's weights with the delta at alpha in them: one file of the original's shapes "
        "and cost, for load_clip(name, pretrained=FILE), to use it here or to tune on from it. To hand it to people "
        "without this package, see export.",
        epilog="example: radapter-lite merge out/photos/tuned --alpha image=1 text=0.5 --out merged.safetensors",
    )
    options.add_tuned(parser)
    options.add_alpha(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="not there yet, ending in .safetensors")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    from radapter_lite.files import make_folder

    alpha, out = options.parse_alpha(arguments.alpha), arguments.out
    if out.suffix != ".safetensors":
        raise ValueError(f"{out} must end in .safetensors, by which open_clip knows how to read it")
    if out.exists():
        raise ValueError(f"{out} is there already: name another file, or remove it")
    tuned, backbone = options.load_tuned(arguments.tuned, arguments, options.device(arguments))
    delta = tuned.delta  # a method without one is refused here
    make_folder(out.parent)
    delta.export(backbone.model, out, alpha)
    size = out.stat().st_size / 1e6
    print(f"{out} holds {backbone.name} at alpha {' '.join(arguments.alpha)} ({size:.0f} MB):")
    print(f'  load_clip("{backbone.name}", pretrained="{out}")')
    return 0
