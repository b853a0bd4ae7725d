"""What every bench is: independent runs, of which those that a file lacks are made, measured by an exam, and kept.

They are made here, on cores or on a Dask cluster, and each is kept as it ends.
"""

import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import torch
from joblib.externals.loky import ProcessPoolExecutor
from torch import Tensor

from radapter_lite.alpha_choice import unlabelled_statistics
from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.encoding import predict
from radapter_lite.evaluation import along
from radapter_lite.progress import progress
from radapter_lite.results import add_rows, missing, read_rows
from radapter_lite.statistics import mean_and_interval, summarize
from radapter_lite.tasks import Task, as_task
from radapter_lite.tuned import Tuned

Key = dict[str, Any]  # id_domain, seed and whatever else tells a run from others, as columns of its rows
Run = Callable[[Key], pd.DataFrame]
PATIENCE = 5  # seconds that a cluster has to answer, and to have a worker
_where: ContextVar[Any] = ContextVar("where", default=1)  # a number of processes, or a cluster's client
_turn = Lock()  # a run changes the model and draws from its process's random numbers
_unpickled = lru_cache(1)(pickle.loads)  # with the images that it has read, and zero-shot's answers


@contextmanager
def workers(jobs: int = 1, dask: str | None = None) -> Iterator[None]:
    """Within it, benches make their runs in `jobs` processes, or on the Dask cluster of an address.

    A cluster's workers need this package and the files that the runs read. Raises ConnectionError if no cluster with a
    worker answers within seconds, and ModuleNotFoundError without Dask.
    """
    where: Any = nullcontext(jobs)
    if dask:
        from distributed import Client
        from distributed.comm import resolve_address

        try:
            resolve_address(dask)  # a client of what is no address would complain once more at its end
            where = Client(dask, timeout=PATIENCE, set_as_default=False)
            where.wait_for_workers(1, PATIENCE)
        except Exception as error:  # what answers there may be anything
            found = f"no Dask cluster with a worker answers at {dask} ({error}): start `dask scheduler` and"
            how = "`dask worker ADDRESS`, and give the address that the first prints, such as tcp://127.0.0.1:8786"
            raise ConnectionError(f"{found} {how}") from error
    with where as given:
        token = _where.set(given)
        try:
            yield
        finally:
            _where.reset(token)


def run_missing(keys: list[Key], run: Run, path: Path) -> pd.DataFrame:
    """Make the runs that `path` does not hold yet, add the rows of each as it ends, and return all that it holds.

    If one fails, the others are made; then raises ValueError, which names it. A run of a lost worker is made anew.
    """
    left, failed = missing(keys, path), []
    for key, result in progress(_each(run, left), path.stem, total=len(left)):
        try:
            rows = result()
        except Exception as error:  # of whatever kind, it is this run's alone
            failed.append((key, error))
        else:
            add_rows(rows, path)
    for key, reason in failed[:1]:
        first = ", ".join(f"{name} {value}" for name, value in key.items())
        found = f"{len(failed)} of {len(left)} runs failed, the first with {first} ({type(reason).__name__}: {reason})"
        raise ValueError(f"{found}; the others' rows are kept: mend the cause and run the same again") from reason
    return read_rows(path)


def run_all(keys: list[Key], run: Run, path: Path, by: list[str], metric: str = "accuracy") -> pd.DataFrame:
    """`run_missing` of keys of one id_domain, whose rows are as `Exam.measure` gives them.

    Returns ID and OOD on test images at α = 1, or without an α, by the columns `by`: means and intervals over seeds.
    """
    rows = run_missing(keys, run, path)
    shown = (rows["id_domain"] == keys[0]["id_domain"]) & (rows["split"] == "test") & ~(rows["alpha"] < 1)
    return mean_and_interval(summarize(rows[shown], [*by, "seed"], metric), by)


def _each(run: Run, keys: list[Key]) -> Iterator[tuple[Key, Callable[[], pd.DataFrame]]]:
    """Each key, as its run ends, with what returns its rows or raises its error."""
    where = _where.get()
    if where == 1 or not keys:
        yield from ((key, partial(run, key)) for key in keys)
        return
    sent: Any = cloudpickle.dumps(run)
    if isinstance(where, int):
        threads = max(1, torch.get_num_threads() // where)
        pool = ProcessPoolExecutor(where, env={"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"})
        at_once = {"kill_workers": True}
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is large
            sent = where.submit(bytes, sent)  # the result of a task is made anew where it is lost
        pool, at_once = where.get_executor(pure=False), {"wait": False}
    try:
        futures = {pool.submit(_make, sent, key): key for key in keys}
        yield from ((futures[future], future.result) for future in as_completed(futures))
    except BaseException:  # an interruption: what is being run is not waited for
        pool.shutdown(**at_once)
        raise
    pool.shutdown()


def _make(sent: bytes, key: Key) -> pd.DataFrame:
    with _turn:
        return _unpickled(sent)(key)


@dataclass(frozen=True, eq=False)
class Exam:
    """What tuned models are measured on, test images of every domain and ID validation images, beside zero-shot."""

    backbone: Backbone
    task: Task

    @classmethod
    def prepare(cls, backbone: Backbone, images: ImageSet | Task) -> "Exam":
        task = as_task(images)
        split, is_id = task.images.table["split"], task.images.table["domain"] == task.images.id_domain
        asked = (split == "test") | ((split == "validation") & is_id)
        return cls(backbone, task.on(task.images.take(np.flatnonzero(asked))))

    @cached_property
    def zero_shot(self) -> Tensor:
        """Similarities at α = 0 [N, T]."""
        return predict(self.backbone, self.task)

    def measure(self, tuned: Tuned, alphas: Iterable[float], **about: object) -> pd.DataFrame:
        """A row for each α, split and domain; one α, NaN, for a method without.

        It has `about`; alpha, split, domain, is_id, the task's metric, images, forgotten, for curves the columns of
        `unlabelled_statistics`, trained_parameters and seconds of training.
        """
        if tuned.has_alpha:
            found = along(self.backbone, tuned, self.task, alphas, self.zero_shot)
            parts = [self._rows(similarities, alpha) for alpha, similarities, _ in found]
        else:
            parts = [self._rows(tuned.similarities(self.backbone, self.task), np.nan)]
        costs = {"trained_parameters": tuned.trained_parameters, "seconds": seconds(tuned)}
        return pd.concat(parts, ignore_index=True).assign(**about, **costs)

    def _rows(self, similarities: Tensor, alpha: float) -> pd.DataFrame:
        parts = []
        for split, rows in self.task.images.table.groupby("split").indices.items():
            task = self.task.on(self.task.images.take(rows))
            now, before = similarities[rows], self.zero_shot[rows]
            table = task.score(now, before)
            if not np.isnan(alpha):  # points may answer in logits of any scale, and have no α to choose
                told = unlabelled_statistics(now, task.images, before, self.backbone.temperature)
                table = table.merge(told, on="domain")
            parts.append(table.assign(alpha=alpha, split=split))
        return pd.concat(parts, ignore_index=True)


def seconds(tuned: Tuned) -> float:
    """How long training took; 0 for a method without steps."""
    return round(float(tuned.history["seconds"].iloc[-1]), 1) if len(tuned.history) else 0.0
