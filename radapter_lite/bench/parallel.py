"""Where a bench's independent runs are made: in this process, on cores by joblib, or on a Dask cluster.

Another process is sent `run` once, with all that it closes over. What it then reads and computes, such as images and
zero-shot answers, stays in its memory for the runs that follow.
"""

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from itertools import groupby
from threading import Lock
from typing import Any
from uuid import uuid4

import cloudpickle
import pandas as pd
import torch
from joblib.externals.loky import ProcessPoolExecutor

Key = dict[str, Any]  # id_domain, seed and whatever else tells a run from others, as columns of its rows
Run = Callable[[Key], pd.DataFrame]
Outcome = tuple[Key, pd.DataFrame | Exception]

PATIENCE = 5  # seconds that a cluster has to answer, and to have a worker
_where: ContextVar[Any] = ContextVar("where", default=1)  # a number of processes, or the cluster's client
_sent: dict[str, Run] = {}  # what a worker was sent, by the name of its pool
_one_at_a_time = Lock()  # a run changes the model and draws from its process's random numbers


@contextmanager
def workers(jobs: int = 1, dask: str | None = None) -> Iterator[None]:
    """Within it, benches make their runs in `jobs` processes, or else on the Dask cluster of this address.

    The workers of a cluster need this package and what the run reads. Raises ModuleNotFoundError without Dask, and
    ConnectionError if no cluster with a worker answers within seconds.
    """
    with _connect(dask) if dask else nullcontext(jobs) as where:
        token = _where.set(where)
        try:
            yield
        finally:
            _where.reset(token)


def each(run: Run, keys: list[Key], unit: str | None = None) -> Iterator[Outcome]:
    """Every key with its rows, or with the error of its run, as runs end; a cluster makes those of a lost worker anew.

    Args:
        unit: a column; runs that have the same there are made in one process, in their order, for they share work.
    """
    where = _where.get()
    if where == 1 or not keys:
        yield from _outcomes(run, keys)
        return
    units = [list(own) for _, own in groupby(keys, lambda key: key[unit] if unit else key)]
    name = uuid4().hex
    with (_cores if isinstance(where, int) else _cluster)(where, name, cloudpickle.dumps(run)) as pool:
        futures = {pool.submit(_make, name, own): own for own in units}
        for future in as_completed(futures):
            try:
                outcomes = future.result()
            except Exception as error:  # of the worker, not of a run
                outcomes = [(key, error) for key in futures[future]]
            yield from outcomes


def _outcomes(run: Run, keys: list[Key]) -> Iterator[Outcome]:
    for key in keys:
        try:
            rows: pd.DataFrame | Exception = run(key)
        except Exception as error:  # of whatever kind, it is this run's alone
            rows = error
        yield key, rows


def _receive(name: str, run: bytes) -> None:
    _sent[name] = pickle.loads(run)


def _forget(name: str) -> None:
    _sent.pop(name, None)


def _make(name: str, keys: list[Key]) -> list[Outcome]:
    with _one_at_a_time:
        return list(_outcomes(_sent[name], keys))


@contextmanager
def _cores(jobs: int, name: str, run: bytes) -> Iterator[Executor]:
    threads = max(1, torch.get_num_threads() // jobs)
    environment = {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    pool = ProcessPoolExecutor(jobs, initializer=_receive, initargs=(name, run), env=environment)
    try:
        yield pool
    finally:
        pool.shutdown(kill_workers=True)


def _connect(address: str) -> Any:
    from distributed import Client

    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
        client.wait_for_workers(1, PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConnectionError(
            f"no Dask cluster with a worker answers at {address} ({error}): start one with `dask scheduler` and "
            f"`dask worker ADDRESS`, and give its address, such as tcp://127.0.0.1:8786"
        ) from error
    return client


@contextmanager
def _cluster(client: Any, name: str, run: bytes) -> Iterator[Executor]:
    from distributed import WorkerPlugin

    class Delivery(WorkerPlugin):  # workers that join later, or in place of lost ones, get it too
        def setup(self, worker: Any) -> None:
            _receive(name, run)

        def teardown(self, worker: Any) -> None:
            _forget(name)

    client.register_plugin(Delivery(), name)
    pool = client.get_executor(pure=False)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False)
        client.unregister_worker_plugin(name)
