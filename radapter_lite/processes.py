"""Several processes that train as one: each encodes its rows of a batch, and all see the loss of the whole.

All draw the same random numbers, so that they agree on the batch, its texts and what is dropped. Features are gathered
with their gradient, and gradients averaged: N processes give the numbers of one, up to rounding. `accelerate launch`,
`notebook_launcher` or `launch` starts them; in a process that is alone, Accelerate is not even imported.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

GO_ON = "start it again, with any number of processes, and it goes on from the last state that was saved"
MISTAKES = ("ValueError", "OSError", "FileNotFoundError", "NotADirectoryError", "PermissionError")


def count() -> int:
    """How many processes train together; the first call joins those that a launcher started."""
    if not dist.is_initialized():
        if "RANK" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
            return 1
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())
    return dist.get_world_size()


def rank() -> int:
    """The number of this process, from 0; the first one writes and prints for all."""
    return dist.get_rank() if count() > 1 else 0


def asks_for_shards() -> bool:
    """Whether Accelerate's configuration asks several processes to divide the weights, by FSDP."""
    return count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def own_rows(size: int) -> Tensor:
    """The rows of a batch of `size` that this process encodes [ceil(size / count)]; past the end they begin anew."""
    each = math.ceil(size / count())
    return (rank() * each + torch.arange(each)) % size


def gathered(features: Tensor, size: int) -> Tensor:
    """The features of a whole batch [size, D] from those of each process's own rows; a whole batch as it is.

    Each process computes the same loss of them, and so knows the gradient of its own rows. It is given on `count`
    times, so that the mean of the encoder's gradients is their sum; those of weights behind the features are alike.
    """
    if len(features) == size:
        return features
    own = features.detach().contiguous()
    parts = [torch.empty_like(own) for _ in range(count())]
    dist.all_gather(parts, own)
    parts[rank()] = own + count() * (features - own)
    return torch.cat(parts)[:size]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    gradients = [] if count() == 1 else [p.grad.div_(count()) for p in parameters if p.grad is not None]
    for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
        work.wait()


def share(modules: Iterable[nn.Module]) -> None:
    """Wait for all processes, and give them the first one's weights and buffers, to the bit."""
    if count() > 1:
        dist.barrier()
        for tensor in [tensor for module in modules for tensor in module.state_dict().values()]:
            dist.broadcast(tensor, 0)


@contextmanager
def together() -> Iterator[None]:
    """Inside, what the backend says of a process that is gone becomes a ConnectionError of one sentence."""
    try:
        yield
    except RuntimeError as error:
        if count() == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise ConnectionError(f"another of the {count()} processes is gone, and the run ends: {GO_ON}") from error


def launch(function: Callable[[Any], Any], argument: Any, number: int, cpu: bool = False) -> None:
    """Call function(argument) in `number` processes of this machine that train together.

    Raises ValueError with the sentence of a process that found a mistake, ChildProcessError for one killed; all end.
    """
    from accelerate.utils import PrepareForLaunch, patch_environment
    from accelerate.utils.other import get_free_port
    from torch import multiprocessing

    worker = PrepareForLaunch(function, "MULTI_CPU")  # for any device: it sets RANK and LOCAL_RANK
    threads = os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // number))
    where = {"master_addr": "127.0.0.1", "master_port": get_free_port(), "omp_num_threads": threads}
    with patch_environment(**where, nproc=number, world_size=number, accelerate_use_cpu=cpu):
        run = multiprocessing.start_processes(worker, (argument,), number, join=False)
    try:
        while not run.join():
            pass
    except (multiprocessing.ProcessExitedException, multiprocessing.ProcessRaisedException) as error:
        # The last line of a process's traceback; of one that was killed, how.
        how, _, sentence = str(error).strip().splitlines()[-1].partition(": ")
        if how in MISTAKES:
            raise ValueError(sentence) from None
        if isinstance(error, multiprocessing.ProcessRaisedException) and how != "ConnectionError":
            raise
        how = how.rpartition(" terminated with ")[2]
        raise ChildProcessError(f"process {error.error_index + 1} of {number} ended ({how}): {GO_ON}") from None
    finally:
        for process in run.processes:
            process.terminate()
