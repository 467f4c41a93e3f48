"""Training on several devices: each has a process, called a rank, and all ranks take every step together.

torchrun or SLURM starts the ranks, on any number of machines. On one machine `fit` starts them itself, with the pool's
processes (`crystalframer.processes`): they share its prepared crystals, and it works the same from the command line, a
script and a notebook. Ranks exchange data with `torch.distributed`: gloo on the CPU, NCCL on GPUs. A training on one
device has no process group, and the functions here return at once.
"""

from __future__ import annotations

import atexit
import queue
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed as dist

from crystalframer.errors import CrystalFramerError, RankError
from crystalframer.processes.child import Child, Inbox, Kind, Message, next_message
from crystalframer.processes.sharing import portable, write_shared
from crystalframer.training.launch import Rank, launched

T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""How long a rank waits for the others: they may read different amounts of data, and rank 0 saves files."""
GRACE = 5.0
"""Seconds in which other ranks may report why the exchange with them failed."""
SAID_ELSEWHERE = "the same error ended all ranks; rank 0 reports it"


# Numbers of ranks


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def n_ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


# Exchange of values


def gather(value: T) -> list[T]:
    """The values of all ranks, in their order. They are pickled: for small values that are exchanged seldom."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def total(value: Tensor) -> Tensor:
    """The sum over all ranks. It is computed on the device without waiting."""
    if dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
    return value


def spread(tensors: Iterable[Tensor]) -> None:
    """Copy the tensors of rank 0 to all ranks, in place."""
    for tensor in tensors:
        dist.broadcast(tensor, 0)


def agreed(work: Callable[[], T]) -> T:
    """The result of `work`. If it fails on some ranks, it fails on all, with the error of the lowest of these."""
    if not dist.is_initialized():
        return work()
    result, error = None, None
    try:
        result = work()
    except Exception as failed:
        error = failed
    errors = gather(None if error is None else portable(error))
    first = next((number for number, other in enumerate(errors) if other is not None), None)
    if first is None:
        return result  # type: ignore[return-value]
    reason = error if first == rank() else errors[first]
    assert reason is not None
    if rank() > 0:
        reason.add_note(SAID_ELSEWHERE)
    raise reason


def is_said_elsewhere(error: BaseException) -> bool:
    """Whether rank 0 reports this error, so that this rank need not."""
    return SAID_ELSEWHERE in getattr(error, "__notes__", ())


# Start and end


def join(own: Rank, on_cuda: bool) -> None:
    """Become this rank; returns when all ranks are there."""
    if on_cuda:
        # Under SLURM a process may see its own GPU alone.
        torch.cuda.set_device(own.local_rank % torch.cuda.device_count())
    # Gloo besides NCCL: small values are exchanged on the CPU, without waiting for the GPU.
    backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    dist.init_process_group(backend, init_method=own.meeting, rank=own.rank, world_size=own.n_ranks, timeout=PATIENCE)


def join_launched(on_cuda: bool) -> None:
    """Become the rank that torchrun or SLURM made of this process, once for all its trainings."""
    own = launched()
    if own is not None and own.n_ranks > 1 and not dist.is_initialized():
        join(own, on_cuda)
        atexit.register(leave)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@dataclass(frozen=True)
class _Following:
    """The work of the other ranks; its item is the number of the rank."""

    work: Callable[[], object]
    n_ranks: int
    meeting: str
    on_cuda: bool

    def __call__(self, number: int, report: object) -> None:
        join(Rank(number, self.n_ranks, number, self.meeting), self.on_cuda)
        self.work()
        leave()


@contextmanager
def followers(n_ranks: int, work: Callable[[], object], on_cuda: bool) -> Iterator[None]:
    """Start the other ranks on this machine, each of which does `work`, and be rank 0 meanwhile.

    `work` is pickled, and its arrays are shared. The other ranks end with this context, however it ends.

    Raises:
        RankError: the process of another rank ended.
        Exception: the first error of any rank.
    """
    inbox: Inbox = queue.SimpleQueue()
    is_over = threading.Event()
    with tempfile.TemporaryDirectory(prefix="crystalframer-") as name:
        folder = Path(name)
        meeting = (folder / "meeting").as_uri()
        write_shared(folder, _Following(work, n_ranks, meeting, on_cuda))
        others = {Child(folder, inbox, torch.get_num_threads()): number for number in range(1, n_ranks)}
        try:
            # Before the ranks wait for one another, which would not notice that a process has ended.
            _await("ready", others, inbox)
            for child, number in others.items():
                child.send(number)
            if on_cuda:
                threading.Thread(target=_give_up_waiting, args=(list(others), is_over), daemon=True).start()
            join(Rank(0, n_ranks, 0, meeting), on_cuda)
            yield
            _await("done", others, inbox)
        except Exception as error:
            earlier = _earlier_failure(error, others, inbox)
            if earlier is None:
                raise
            raise earlier from error
        finally:
            is_over.set()
            for child in others:
                child.stop()
            leave()


def _await(kind: Kind, others: dict[Child, int], inbox: Inbox) -> None:
    """Wait until all other ranks have sent such a message.

    Raises:
        RankError: the process of a rank ended.
        Exception: the error of a rank.
    """
    for _ in others:
        child, message = next_message(inbox, PATIENCE.total_seconds())
        if message.kind != kind:
            raise _failure(message, child, others[child])


def _give_up_waiting(others: list[Child], is_over: threading.Event) -> None:
    """NCCL waits for ever for a process that has ended; gloo does not."""
    while not is_over.wait(1.0):
        if any(child.process.poll() for child in others):
            if not is_over.wait(GRACE) and dist.is_initialized():
                dist.distributed_c10d._abort_process_group()
            return


def _earlier_failure(error: Exception, others: dict[Child, int], inbox: Inbox) -> Exception | None:
    """The failure of another rank that caused this error; None if there is none."""
    if isinstance(error, CrystalFramerError):
        return None  # all ranks agree on it
    failures: list[tuple[Child, Message]] = []
    seconds = GRACE if isinstance(error, RuntimeError) else 0.0
    with suppress(queue.Empty):
        while True:
            child, message = next_message(inbox, seconds)
            if message.kind in ("failed", "ended"):
                failures.append((child, message))
                seconds = 0.1  # those that lost the connection to the first fail at almost the same time
    if not failures:
        return None
    child, message = min(failures, key=lambda failure: failure[1].time)
    return _failure(message, child, others[child])


def _failure(message: Message, child: Child, number: int) -> Exception:
    if message.kind == "failed":
        return message.content
    exit_code = child.stop()
    killed = ": killed, perhaps because memory ran out" if exit_code == -9 else ""
    return RankError(
        f"the process of rank {number} ended (exit code {exit_code}{killed}); standard error may say more. Resuming "
        "continues from the latest epoch",
        value=number,
    )
