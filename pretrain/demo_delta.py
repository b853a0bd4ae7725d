"""Tune the delta that `radapter-lite app` shows when it is given none, and save it in half precision.

    python demo_delta.py              # -> ../radapter_lite/assets/demo_delta.safetensors and .json
    python demo_delta.py --epochs 2   # a quick one

Half precision halves the file. It touches what was learned alone: the fingerprint in the JSON is of the backbone's
weights, and the delta is put into them in float32. It has to be made anew whenever PictoCLIP is.
"""

import argparse

import torch

from radapter_lite import Delta, evaluate, load_clip, load_images, tune
from radapter_lite.assets import DEMO_DELTA

SHOTS, SEED = 16, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, help="passes over the images (the recommended)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch (all cores)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    clip, images = load_clip(), load_images(id_domain="camera")
    short = {} if arguments.epochs is None else {"epochs": arguments.epochs, "momentum": 0.5}
    tuned = tune(clip, images.few_shot(SHOTS, SEED), seed=SEED, **short)

    half = {name: tensor.half() for name, tensor in tuned.delta.tensors.items()}
    about = {"images": images.name, "id_domain": images.id_domain, "shots": SHOTS}
    delta = Delta(tuned.delta.kind, half, tuned.delta.meta | {"data": about})
    delta.save(DEMO_DELTA)
    with delta.applied(clip.model, 1.0):
        print(evaluate(clip, images.test).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
