"""The command line: finds the command, runs it, and turns a mistake into one sentence and an exit code."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from radapter_lite.commands import app, bench, book, doctor, export, lab, run, segment, sweep, tune
from radapter_lite.errors import NotebookError
from radapter_lite.version import __version__

COMMANDS = (run, lab, app, book, tune, sweep, segment, export, bench, doctor)  # in the order of --help


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 after a mistake or a failure, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.execute(arguments) or 0
    except (NotebookError, OSError, ValueError) as error:
        print(f"radapter-lite: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        extra = next((extra for extra, commands in doctor.EXTRAS.items() if arguments.command in commands), None)
        if extra is None or not error.name or "." in error.name:  # nothing that an extra brings
            raise
        needs = f"{arguments.command} needs {error.name}, which is not installed"
        print(f'radapter-lite: {needs}: pip install "radapter-lite[{extra}]"', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("radapter-lite: interrupted; what was finished is kept.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="radapter-lite",
        description="R-Adapter on a laptop: tune CLIP on a few images, slide along alpha, take the result elsewhere; "
        "execute the walkthrough, open it, or check the installation.",
        epilog="example: radapter-lite run --profile smoke",
    )
    parser.add_argument("--version", action="version", version=f"radapter-lite {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in COMMANDS:
        title, description, example = (command.__doc__ or "\n\n\n\n").split("\n\n")  # `python -OO` has none
        told = title.rpartition("`: ")[2].removesuffix(".")
        about: dict[str, Any] = {"help": told, "description": description, "epilog": example}
        name = command.__name__.rpartition(".")[2]
        own = commands.add_parser(name, parents=getattr(command, "PARENTS", ()), **about)
        getattr(command, "add", lambda _: None)(own)
        own.set_defaults(execute=command.execute)
    return parser


if __name__ == "__main__":
    sys.exit(main())
