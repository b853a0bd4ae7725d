"""Your turn: cells in which the reader writes the line that matters, and what is wrong with what they wrote.

In a notebook, a cell tagged `your-turn` holds the solution, and the lines to be written end in "# your turn". The next
cell calls `check`. `with_blanks` makes the reader's version of it.
"""

import re
from collections.abc import Mapping
from typing import Any

import nbformat
import numpy as np
import torch
from IPython.display import Markdown, display
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from radapter_lite.errors import NotebookError

MARK = "# your turn"
NUMBERS = "iufc"  # kinds of NumPy's types
_LINE = re.compile(rf"^(?P<indent>\s*)(?P<kept>return |yield |[\w., \[\]]+ [-+*/@]?= )?.*{MARK}$")


def check(answer: Any, right: Any, mistakes: Mapping[str, Any] | None = None, tolerance: float = 1e-4) -> None:
    """Show in one sentence whether an answer is right, and if not, what is wrong with it.

    `answer` is a value, or a function of nothing that returns one, whose errors are told too: a number, a tensor, an
    array, a table or a text. `mistakes` are what typical ones give, by the sentence to say of them; they go before what
    is seen of every answer: shape, sign, transposition, a factor. `tolerance` is a share of the largest right number.
    """
    display(Markdown(_told(answer, right, mistakes or {}, tolerance)))


def with_blanks(nb: NotebookNode) -> NotebookNode:
    """The notebook with `...` for the lines that are the reader's, their solutions folded below, and no outputs.

    Raises NotebookError for a cell tagged `your-turn` without such a line, or without a check after it.
    """
    nb = nbformat.from_dict(nb)
    nb.metadata = {name: own for name, own in nb.metadata.items() if name not in ("radapter_lite", "widgets")}
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code):
        cell.outputs, cell.execution_count = [], None
        if "your-turn" in cell.metadata.get("tags", ()):
            solution, cell.source = cell.source.replace(f"  {MARK}", ""), blanked(cell.source)
            if solution == cell.source:
                raise NotebookError(f"{solution[:60]!r} is tagged your-turn: end the reader's lines in {MARK!r}.")
            checks = [after for after in code[number + 1 : number + 2] if "check(" in after.source]
            if not checks:
                raise NotebookError(f"{solution!r} is an exercise without a check: call check() in the next code cell.")
            folded = f"<details><summary>Solution</summary>\n\n```python\n{solution}\n```\n\n</details>"
            nb.cells.insert(nb.cells.index(checks[0]) + 1, new_markdown_cell(folded, id=f"{checks[0].id}-solution"))
    return nb


def blanked(source: str) -> str:
    """A cell's code with `...` in place of what the reader writes: after `return` or `name =`, or as the whole line."""
    return "\n".join(
        f"{line['indent']}{line['kept'] or ''}...  {MARK}" if (line := _LINE.match(each)) else each
        for each in source.splitlines()
    )


def _told(answer: Any, right: Any, mistakes: Mapping[str, Any], tolerance: float) -> str:
    if callable(answer):
        try:
            answer = answer()
        except Exception as error:  # of the reader's line, of whatever kind
            told, answer = next(iter(str(error).splitlines()), "no word of why"), ...
            if "ellipsis" not in told:  # that of a blank further up
                return f"✗ Your line stopped with {type(error).__name__}: {told}"
    if answer is ... or answer is None:
        return f"✗ Nothing is written yet: put your own in place of `...` in the line marked `{MARK}`."
    found, wanted = _array(answer), _array(right)
    numbers = wanted.dtype.kind in NUMBERS
    distance = tolerance * max(np.abs(wanted).max(), 1e-12) if numbers else 0.0

    def near(one: np.ndarray, other: np.ndarray) -> bool:
        if not (numbers and one.dtype.kind in NUMBERS):
            return np.array_equal(one, other)
        return one.shape == other.shape and np.allclose(one, other, 0, distance)

    if found.dtype.kind != wanted.dtype.kind and {found.dtype.kind, wanted.dtype.kind} & set("OSUb"):
        return f"✗ Your result is of type {_type(answer)}, and should be {_type(right)}."
    if near(found, wanted):
        return "✓ Right."
    for sentence, mistaken in mistakes.items():
        if near(found, _array(mistaken)):
            return f"✗ {sentence}"
    if found.shape != wanted.shape:
        told = f"✗ Your result has the shape {found.shape}, and should have {wanted.shape}"
        return f"{told}: it is transposed." if found.shape == wanted.shape[::-1] else f"{told}."
    if not numbers:
        return f"✗ Your result is {answer}, and should be another." if found.ndim == 0 else "✗ Some of it is another."
    if near(found, wanted.T):
        return "✗ Your result is transposed."
    if near(-found, wanted):
        return "✗ Your result has the wrong sign."
    factor = float((found * wanted).sum() / max((wanted * wanted).sum(), 1e-12))
    if found.ndim and factor and near(found / factor, wanted):
        return f"✗ Your result is {factor:.3g} times what it should be."
    at = np.unravel_index(np.abs(found - wanted).argmax(), wanted.shape)
    where = f" at {list(map(int, at))}" if at else ""
    return f"✗ Your result differs most{where}: it is {found[at]:.4g}, and should be {wanted[at]:.4g}."


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)


def _type(value: Any) -> str:
    return f"{type(value).__name__}{f' of {value.dtype}' if hasattr(value, 'dtype') else ''}"
