"""`radapter-lite doctor`: the packages, and whether what the kit ships loads.

Whatever is not of Python itself is imported where it is used: if it is missing, that is what doctor is there to say.
"""

import importlib
import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from radapter_lite.commands import Commands
from radapter_lite.version import __version__

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# The extras of pyproject.toml that commands need. Without them the core works, so they are never broken.
EXTRAS = {"notebooks": ("run", "lab", "book"), "app": ("app",)}
# Imported as well: a compiled package may be installed and not load (torchvision built for another torch).
_IMPORTED = {"torch": "torch", "torchvision": "torchvision", "open-clip-torch": "open_clip"}

Check = tuple[str, Callable[[], str]]


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check the installation",
        description="Tell what is installed, what is missing, and whether the embedded assets load.",
        epilog="example: radapter-lite doctor",
    )
    parser.set_defaults(execute=lambda _: examine())


def examine() -> int:
    """Print a line for each thing looked at, and return 1 if something that is needed is broken, else 0."""
    print(f"radapter-lite {__version__} in {Path(__file__).parent.parent}")
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}\n")
    broken = lacking = 0
    for name, check in _needed():
        try:
            print(f"ok      {name}: {check()}", flush=True)
        except _Lacking as error:
            print(f"without {name}: {error}", flush=True)
            lacking += 1
        except Exception as error:  # whatever is wrong with an installation is a finding, never a crash
            print(f"BROKEN  {name}: {_first_line(error)}", flush=True)
            broken += 1
    in_place = "The core is in place." if lacking else "Everything is in place."
    print(f"\n{broken} broken." if broken else f"\n{in_place}")
    return 1 if broken else 0


class _Lacking(Exception):
    """What is not installed, and need not be."""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else repr(error)


def _needed() -> Iterator[Check]:
    try:
        requirements = _requirements()
    except Exception as error:
        yield "packages", partial(_unknown, error)
    else:
        for requirement in requirements:
            yield requirement.name, partial(_package, requirement)
        for extra, commands in EXTRAS.items():
            yield f"[{extra}] for {', '.join(commands)}", partial(_extra, extra)
    yield "benchmark", _benchmark
    yield "backbone", _backbone


def _requirements(extra: str = "") -> "list[Requirement]":
    """What the core requires on this machine; or, of an extra, what it adds to that."""
    from packaging.requirements import Requirement

    found = [Requirement(text) for text in metadata.requires("radapter-lite") or ()]
    core = [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]
    if not extra:
        return core
    return [each for each in found if each not in core and each.marker and each.marker.evaluate({"extra": extra})]


def _unknown(error: Exception) -> str:
    raise RuntimeError(f"which are needed could not be read ({_first_line(error)}); install radapter-lite again")


def _package(requirement: "Requirement") -> str:
    from packaging.utils import canonicalize_name

    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        raise RuntimeError(f'missing; pip install "{requirement}"') from None
    if not requirement.specifier.contains(version, prereleases=True):
        raise RuntimeError(f'{version} is too old; pip install "{requirement}"')
    if module := _IMPORTED.get(canonicalize_name(requirement.name)):
        importlib.import_module(module)
    return version


def _extra(extra: str) -> str:
    missing = []
    for requirement in _requirements(extra):
        try:
            _package(requirement)
        except RuntimeError:
            missing.append(requirement.name)
    if missing:
        raise _Lacking(f'{", ".join(missing)} missing or too old; pip install "radapter-lite[{extra}]"')
    return _notebooks() if extra == "notebooks" else "complete"


def _notebooks() -> str:
    from radapter_lite.publish.notebook import available

    if not (found := available()):
        raise RuntimeError("none came with this installation; install radapter-lite again")
    return f"complete, with {len(found)} notebooks in {found[0].parent}"


def _benchmark() -> str:
    from radapter_lite.data import load_images

    images = load_images()
    images.image(0)
    return f"PictoShift loads, {len(images)} images of {len(images.classes)} classes"


def _backbone() -> str:
    from radapter_lite.backbone import load_clip

    parameters = sum(p.numel() for p in load_clip("picto").model.parameters())
    return f"PictoCLIP loads, {parameters / 1e6:.1f}M parameters"
