"""The commands of `radapter-lite`, one file each: `add` says what the command takes, `execute` does it.

It may return an exit code; nothing is 0. A file imports what is heavy inside `execute`, so that --help answers at once.
"""

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
