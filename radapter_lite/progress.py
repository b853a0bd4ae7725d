"""Progress bars: one way to draw them, on terminals and in notebooks, and none where nobody watches."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(over: Iterable[Any] | None = None, what: str = "", **options: Any) -> Any:
    """tqdm's bar over an iterable, or one with a `total` that is moved by hand; it goes away when it is done.

    In a notebook it is written to stdout, for what is left of a bar on stderr is an empty red box. Elsewhere it needs
    a terminal: a log file, a test and CI get no bar. The options are tqdm's own, such as total, initial and unit.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    file = sys.stdout if hasattr(shell, "kernel") else sys.stderr
    unwatched = file is sys.stderr and (not file.isatty() or bool(os.environ.get("CI")))
    silent = bool(os.environ.get("TQDM_DISABLE")) or os.environ.get("RANK", "0") != "0"  # of several, the first draws
    options = {"disable": unwatched or silent} | options
    return tqdm(over, desc=what, file=file, leave=False, mininterval=0.5, **options)
