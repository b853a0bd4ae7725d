"""`radapter-lite app`: the slider as a page: your image, your class names, α.

Open a page in the browser: choose or upload an image, type class names, move alpha, and see what changes; or search
images by words. It is served to this machine alone, and what is uploaded stays in its memory.

example: radapter-lite app --delta out/photos/tuned --port 9000
"""

import argparse
from pathlib import Path
from typing import Any

from radapter_lite.commands import options

PARENTS = [options.BACKBONE]


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--delta", type=Path, metavar="DELTA", help="what tune saved (a demonstration)")
    parser.add_argument("--port", type=int, default=8866, metavar="N", help="of the page (8866)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")


def execute(arguments: argparse.Namespace) -> None:
    from radapter_lite.app.server import serve
    from radapter_lite.assets import DEMO_DELTA

    if not 1 <= arguments.port <= 65535:
        raise ValueError(f"--port was given {arguments.port}: expected a number from 1 to 65535")
    arguments.delta = (arguments.delta or DEMO_DELTA).resolve()
    device = options.device(arguments)
    tuned, backbone = options.load_tuned(arguments.delta, arguments, device)
    with tuned.delta.applied(backbone.model, 1.0):  # what does not fit is refused here, and not on the page
        weights = options.full_weights(arguments.pretrained or backbone.pretrained)
    settings: dict[str, Any] = {"delta": str(arguments.delta), "name": backbone.name, "pretrained": weights}
    settings |= {"prompts": backbone.prompts, "device": device}
    del tuned, backbone  # each visitor's kernel loads its own
    serve(settings, arguments.port, not arguments.no_browser)
