"""`radapter-lite book`: build the notebooks into a site that works offline.

Build the notebooks, as they were executed, into static HTML with a contents page, a glossary, the figures and a slider
that moves without a kernel. Nothing is executed, and no page needs a network.

example: radapter-lite book --out site
"""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/book"), metavar="DIR", help="where (./out/book)")


def execute(arguments: argparse.Namespace) -> None:
    from radapter_lite.publish.book import build

    print(f"Open {build(arguments.out).resolve()} in a browser.")
