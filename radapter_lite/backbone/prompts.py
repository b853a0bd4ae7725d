"""Prompts: what stands around a class's name when it is shown to the text encoder, as "a photo of a {}."."""

import os
from collections.abc import Iterable
from pathlib import Path

# For CLIPs that learned from photographs mostly, as nearly all did.
PHOTOS = (
    "a photo of a {}.",
    "a bad photo of a {}.",
    "a drawing of a {}.",
    "a close-up photo of a {}.",
    "a rendering of a {}.",
    "an image of a {}.",
)


def as_prompts(prompts: str | os.PathLike[str] | Iterable[str]) -> tuple[str, ...]:
    """Prompts from a prompt, from several, or from the path of a text file with one a line.

    Raises:
        ValueError: for no prompt at all, or one that has not exactly one {} where the name goes.
        FileNotFoundError: for a path that is no file; a text with {} in it is a prompt and no path.
    """
    if isinstance(prompts, os.PathLike) or (isinstance(prompts, str) and "{}" not in prompts):
        prompts = _lines(Path(prompts))
    found = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    odd = [prompt for prompt in found if not isinstance(prompt, str) or prompt.count("{}") != 1]
    if odd or not found:
        raise ValueError(
            f"prompts must be texts with one {{}} where the class name goes, as 'a photo of a {{}}.', not "
            f"{repr(odd[0]) if odd else 'none at all'}"
        )
    return found


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is neither a prompt, which has {{}} where the class name goes, nor a file of prompts, one a line"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except ValueError as error:
        raise ValueError(f"{path} is no text file in UTF-8 ({error}): give one with a prompt a line") from error
    return [line.strip() for line in lines if line.strip()]
