"""`radapter-lite doctor`: check the installation.

Tell what is installed, what is missing, and whether the embedded assets load.

example: radapter-lite doctor
"""

import argparse
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from radapter_lite.version import __version__

# The extras of pyproject.toml that commands need. Without them the core works, so they are never broken.
EXTRAS = {"notebooks": ("run", "lab", "book"), "app": ("app",), "scale": ("bench", "shards", "data sets")}


def execute(_: argparse.Namespace) -> int:
    """Print a line for each thing looked at, and return 1 if something that is needed is broken, else 0.

    Whatever is not of Python itself is imported where it is used: if it is missing, that is what this is there to say.
    """
    print(f"radapter-lite {__version__} in {Path(__file__).parent.parent}")
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}\n")
    lines: list[str] = []
    for name, check in {"packages": _packages, "benchmark": _benchmark, "backbone": _backbone}.items():
        try:
            lines += check()
        except Exception as error:  # whatever is wrong with an installation is a finding, never a crash
            lines.append(f"BROKEN  {name}: {(str(error) or repr(error)).splitlines()[0]}")
    broken = sum(line.startswith("BROKEN") for line in lines)
    print("\n".join([*lines, "", f"{broken} broken." if broken else "The core is in place."]))
    return int(broken > 0)


def _packages() -> Iterator[str]:
    """A line for each package that the core requires on this machine, and one for each extra."""
    from packaging.requirements import Requirement

    def wrong(each: Requirement) -> str:
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            return "missing"
        return "" if each.specifier.contains(version, prereleases=True) else f"{version} is too old"

    every = [Requirement(line) for line in metadata.requires("radapter-lite") or ()]
    for each in (each for each in every if not each.marker or each.marker.evaluate({"extra": ""})):
        found = wrong(each)
        how = f'{found}; pip install "{each}"' if found else metadata.version(each.name)
        yield f"{'BROKEN ' if found else 'ok     '} {each.name}: {how}"
    for extra, commands in EXTRAS.items():
        own = (each for each in every if each.marker and each.marker.evaluate({"extra": extra}))
        lacking = ", ".join(each.name for each in own if wrong(each))
        how = f'{lacking} missing or too old; pip install "radapter-lite[{extra}]"' if lacking else "complete"
        yield f"{'without' if lacking else 'ok     '} [{extra}] for {', '.join(commands)}: {how}"


def _benchmark() -> Iterator[str]:
    from radapter_lite.data import load_images

    images = load_images()
    images.image(0)
    yield f"ok      benchmark: PictoShift loads, {len(images)} images of {len(images.classes)} classes"


def _backbone() -> Iterator[str]:
    from radapter_lite.backbone import load_clip

    load_clip("picto")
    yield "ok      backbone: PictoCLIP loads"
