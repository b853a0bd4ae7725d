"""What `radapter-lite doctor` says: the machine, the packages, and whether what the kit ships loads."""

import importlib
import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from radapter_lite import __version__

# Imported as well: a compiled package may be installed and not load (torchvision built for another torch).
_IMPORTED = {"torch": "torch", "torchvision": "torchvision", "open-clip-torch": "open_clip"}


def examine() -> int:
    """Print a line for each thing looked at, and return 1 if any of them is broken, else 0."""
    print(f"radapter-lite {__version__} in {Path(__file__).parent}")
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"{_cores()} cores, {psutil.virtual_memory().total / 2**30:.1f} GiB of memory\n")
    broken = 0
    for name, check in _checks():
        try:
            print(f"ok      {name}: {check()}")
        except Exception as error:  # whatever is wrong with an installation is a finding, never a crash
            print(f"BROKEN  {name}: {str(error).splitlines()[0] if str(error) else repr(error)}")
            broken += 1
    print(f"\n{broken} broken." if broken else "\nEverything is in place.")
    return 1 if broken else 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _checks() -> Iterator[tuple[str, Callable[[], str]]]:
    for text in metadata.requires("radapter-lite") or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name, partial(_package, requirement)
    yield "notebooks", _notebooks
    yield "benchmark", _benchmark
    yield "backbone", _backbone


def _package(requirement: Requirement) -> str:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        raise RuntimeError(f'missing; pip install "{requirement}"') from None
    if not requirement.specifier.contains(version, prereleases=True):
        raise RuntimeError(f'{version} is too old; pip install "{requirement}"')
    if module := _IMPORTED.get(canonicalize_name(requirement.name)):
        importlib.import_module(module)
    return version


def _notebooks() -> str:
    from radapter_lite.notebook import available

    if not (found := available()):
        raise RuntimeError("none came with this installation; install radapter-lite again")
    return f"{len(found)} in {found[0].parent}"


def _benchmark() -> str:
    from radapter_lite.data import load_images

    images = load_images()
    images.image(0)
    return f"PictoShift loads, {len(images)} images of {len(images.classes)} classes"


def _backbone() -> str:
    from radapter_lite.backbones import load_clip

    parameters = sum(p.numel() for p in load_clip("picto").model.parameters())
    return f"PictoCLIP loads, {parameters / 1e6:.1f}M parameters"
