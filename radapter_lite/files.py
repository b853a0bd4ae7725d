"""How this package writes a file: under another name first, then into place, so that nobody ever sees half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

StrPath = str | os.PathLike[str]


@contextmanager
def whole(path: StrPath) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the with block ends without an error.

    Raises FileNotFoundError if the folder does not exist, and OSError, which names it, if it cannot be written to.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: make it before saving {path.name} into it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
    except OSError as why:
        raise type(why)(f"{path} cannot be written ({why.strerror}): name a folder that you may write to") from why
    try:
        mode = temporary.stat().st_mode  # as the user's umask has it
        yield temporary
        temporary.chmod(mode)  # safetensors lets nobody else read its files
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: StrPath, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(path: StrPath) -> Path:
    """Make a folder and those above it, where they are missing. Raises OSError, which names it, if it cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as why:
        raise type(why)(f"the folder {path} cannot be made ({why.strerror}): name one that you may write to") from why
    if not os.access(path, os.W_OK):
        raise PermissionError(f"the folder {path} cannot be written to: name one that you may write to")
    return Path(path)
