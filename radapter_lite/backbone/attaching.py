"""Changing what modules of a frozen model take and give, for all that is attached to one, and giving it back."""

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

# a module's first input, its output [..., d] -> what takes the output's place [..., d]; d is last, also a convolution's
Change = Callable[[Tensor, Tensor], Tensor]
InputChange = Callable[[Tensor], Tensor]

# Models with something attached at this moment; merging into their weights would count it twice.
attached_models: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


class Attachment(ExitStack):
    """Changes to a model's modules, until `close` or the end of a with block; its own weights are frozen meanwhile.

    Args:
        outputs: by a module's dotted name, the change of what it gives back.
        inputs: by a module's dotted name, the change of its first input.
    """

    def __init__(
        self, model: nn.Module, outputs: Mapping[str, Change], inputs: Mapping[str, InputChange] | None = None
    ) -> None:
        super().__init__()
        for name, change in outputs.items():
            hook = model.get_submodule(name).register_forward_hook(partial(_change_output, change))
            self.callback(hook.remove)
        for name, change_input in (inputs or {}).items():
            self.enter_context(changed_inputs([model.get_submodule(name)], change_input))
        self.enter_context(frozen(model))
        self.callback(attached_models.discard, model)
        attached_models.add(model)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No weight of the model takes a gradient inside; those that did before do so again after."""
    trainable = nn.ParameterList(p for p in model.parameters() if p.requires_grad).requires_grad_(False)
    try:
        yield
    finally:
        trainable.requires_grad_(True)


@contextmanager
def restored(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The model's weights may be trained inside, and are the original ones after; gives a copy of those."""
    before = copy.deepcopy(model.state_dict())
    try:
        yield before
    finally:
        model.load_state_dict(before)
        model.zero_grad()


@contextmanager
def changed_inputs(modules: Iterable[nn.Module], change: InputChange) -> Iterator[None]:
    """What reaches these modules is changed, inside the with block."""
    with ExitStack() as hooks:
        for m in modules:
            hook = m.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:]))
            hooks.callback(hook.remove)
        yield


def _change_output(change: Change, module: nn.Module, inputs: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # nn.MultiheadAttention: output, attention weights
        return (change(inputs[0], output[0]), *output[1:])
    if isinstance(module, nn.Conv2d):  # [B, d, H, W]
        return change(inputs[0].movedim(1, -1), output.movedim(1, -1)).movedim(-1, 1)
    return change(inputs[0], output)
