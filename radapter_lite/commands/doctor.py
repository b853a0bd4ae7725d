"""`radapter-lite doctor`: the packages, and whether what the kit ships loads.

Whatever is not of Python itself is imported where it is used: if it is missing, that is what doctor is there to say.
"""

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
    failed = []
    for name, needed, check in _checks():
        try:
            print(f"ok      {name}: {check()}", flush=True)
        except Exception as error:  # whatever is wrong with an installation is a finding, never a crash
            print(f"{'BROKEN ' if needed else 'without'} {name}: {_first_line(error)}", flush=True)
            failed.append(needed)
    in_place = "The core is in place." if failed else "Everything is in place."
    print(f"\n{sum(failed)} broken." if any(failed) else f"\n{in_place}")
    return int(any(failed))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else repr(error)


def _checks() -> Iterator[tuple[str, bool, Callable[[], str]]]:
    """The name of each thing, whether the core needs it, and what tells of it or raises."""
    try:
        for requirement in _requirements():
            yield requirement.name, True, partial(_package, requirement)
        for extra, commands in EXTRAS.items():
            yield f"[{extra}] for {', '.join(commands)}", False, partial(_extra, extra)
    except Exception as error:
        yield "packages", True, partial(_unknown, error)
    yield "benchmark", True, _benchmark
    yield "backbone", True, _backbone


def _requirements(extra: str = "") -> "list[Requirement]":
    """What the core requires on this machine, or what an extra adds to that."""
    from packaging.requirements import Requirement

    found = map(Requirement, metadata.requires("radapter-lite") or ())
    return [each for each in found if (each.marker.evaluate({"extra": extra}) if each.marker else not extra)]


def _unknown(error: Exception) -> str:
    raise RuntimeError(f"which are needed could not be read ({_first_line(error)}); install radapter-lite again")


def _package(requirement: "Requirement") -> str:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        raise RuntimeError(f'missing; pip install "{requirement}"') from None
    if not requirement.specifier.contains(version, prereleases=True):
        raise RuntimeError(f'{version} is too old; pip install "{requirement}"')
    return version


def _extra(extra: str) -> str:
    missing = []
    for requirement in _requirements(extra):
        try:
            _package(requirement)
        except RuntimeError:
            missing.append(requirement.name)
    if missing:
        raise RuntimeError(f'{", ".join(missing)} missing or too old; pip install "radapter-lite[{extra}]"')
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
