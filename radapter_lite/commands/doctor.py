"""`radapter-lite doctor`: check the installation."""

import argparse

from radapter_lite.commands import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check the installation",
        description="Tell what is installed, what is missing, and whether the embedded assets load.",
        epilog="example: radapter-lite doctor",
    )
    parser.set_defaults(execute=execute)


def execute(_: argparse.Namespace) -> int:
    from radapter_lite.doctor import examine

    return examine()
