"""Training on several devices: a process for each, called a rank, and all of them take every step together.

Who starts them: torchrun or SLURM, on any number of machines; or, on one machine, the process that calls `fit`, which
hands its prepared crystals to the others through files that all of them map into memory (so it works the same from the
command line, a script and a notebook). What they say to one another goes through `torch.distributed`: gloo on the CPU,
NCCL on GPUs. A training on one device has no process group, and the functions here return at once.
"""

from __future__ import annotations

import atexit
import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from crystalframer.errors import CrystalFramerError, RankError
from crystalframer.training.launch import Place, launched

T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""How long a rank waits for the others: they may have different amounts of data to read, and rank 0 has to save."""
GRACE = 5.0
"""Seconds for a process to end after another has failed."""
SAID_ELSEWHERE = "the same error ended all ranks; rank 0 reports it"


# Who there is


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def n_ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


# What they say to one another


def gather(value: T) -> list[T]:
    """The values of all ranks, in their order. For small things, now and then: they are pickled."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def total(value: Tensor) -> Tensor:
    """The sum over all ranks, on the device, without waiting for it."""
    if dist.is_initialized():
        value = value.clone()
        dist.all_reduce(value)
    return value


def spread(tensors: Iterable[Tensor]) -> None:
    """Make them, in place, what they are on rank 0."""
    for tensor in tensors:
        dist.broadcast(tensor, 0)


def agreed(work: Callable[[], T]) -> T:
    """The result of `work`, unless it failed on some rank: then it fails on all, with the error of the lowest such."""
    if not dist.is_initialized():
        return work()
    result, error = None, None
    try:
        result = work()
    except Exception as failed:
        error = failed
    errors = gather(_portable(error))
    first = next((place for place, other in enumerate(errors) if other is not None), None)
    if first is None:
        return result  # type: ignore[return-value]
    reason = error if first == rank() else errors[first]
    assert reason is not None
    if rank() > 0:
        reason.add_note(SAID_ELSEWHERE)
    raise reason


def is_said_elsewhere(error: BaseException) -> bool:
    """Whether rank 0 has this error to report, and this rank need not."""
    return SAID_ELSEWHERE in getattr(error, "__notes__", ())


def _portable(error: BaseException | None) -> BaseException | None:
    """The error itself where it survives the journey to another process, its text where it does not."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RankError(f"{type(error).__name__}: {error}")


# How they come together


def join(place: Place, on_cuda: bool) -> None:
    """Take this place; returns when all ranks are there."""
    if on_cuda:
        # Under SLURM a process may be shown its own GPU alone.
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    # Gloo besides NCCL: small things are exchanged on the CPU, without waiting for the GPU.
    backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    dist.init_process_group(
        backend, init_method=place.meeting, rank=place.rank, world_size=place.n_ranks, timeout=PATIENCE
    )


def join_launched(on_cuda: bool) -> None:
    """Take the place given by torchrun or SLURM, if there is one: once for all trainings of this process."""
    place = launched()
    if place is not None and place.n_ranks > 1 and not dist.is_initialized():
        join(place, on_cuda)
        atexit.register(leave)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def followers(n_ranks: int, work: Callable[[], object], on_cuda: bool) -> Iterator[None]:
    """Start the other ranks on this machine, each of which does `work`, and be rank 0 meanwhile.

    `work` is pickled; the arrays in it are shared, not copied. However this ends, the others end with it.

    Raises:
        RankError: a process was killed.
        Exception: whatever failed first, here or there.
    """
    with tempfile.TemporaryDirectory(prefix="crystalframer-") as name:
        folder = Path(name)
        write_shared(folder, work)
        # As here: a script may have changed where modules are found.
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        command = [sys.executable, "-m", "crystalframer.training.rank_process", name, str(n_ranks), str(int(on_cuda))]
        others = {
            other: subprocess.Popen(
                [*command, str(other)], stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
            )
            for other in range(1, n_ranks)
        }
        is_over = threading.Event()
        try:
            _await_start(folder, others)
            if on_cuda:
                processes = list(others.values())
                threading.Thread(target=_give_up_waiting, args=(processes, is_over), daemon=True).start()
            join(Place(0, n_ranks, 0, meeting(folder)), on_cuda)
            yield
            for process in others.values():
                process.wait(PATIENCE.total_seconds())
        except Exception as error:
            earlier = _failure_of(folder, others, error)
            if earlier is None:
                raise
            raise earlier from error
        finally:
            is_over.set()
            for process in others.values():
                process.kill()
                process.wait()
                assert process.stdin is not None
                process.stdin.close()
            leave()


def meeting(folder: Path) -> str:
    return (folder / "meeting").as_uri()


def started_file(folder: Path, rank: int) -> Path:
    return folder / f"started-{rank}"


def error_file(folder: Path, rank: int) -> Path:
    return folder / f"error-{rank}"


def _await_start(folder: Path, others: dict[int, subprocess.Popen[bytes]]) -> None:
    """Before the first wait for one another, which would not notice that a process is gone."""
    while not all(started_file(folder, other).exists() for other in others):
        for other, process in others.items():
            if process.poll() is not None:
                raise RankError(
                    f"the process of rank {other} ended at its start (exit code "
                    f"{process.returncode}); what it wrote to standard error may say why"
                )
        time.sleep(0.02)


def _give_up_waiting(processes: list[subprocess.Popen[bytes]], is_over: threading.Event) -> None:
    """NCCL does not notice that a process is gone, and waits; gloo does."""
    while not is_over.wait(1.0):
        if any(process.poll() for process in processes):
            if not is_over.wait(GRACE) and dist.is_initialized():
                dist.distributed_c10d._abort_process_group()
            return


def _failure_of(folder: Path, others: dict[int, subprocess.Popen[bytes]], error: Exception) -> Exception | None:
    """What went wrong in another process before it went wrong here; None if nothing did."""
    if isinstance(error, CrystalFramerError) and not isinstance(error, RankError):
        return None  # all ranks agree on it
    reports = [error_file(folder, other) for other in others if error_file(folder, other).exists()]
    if reports:
        # Those that lost the connection to the first failed later.
        return pickle.loads(min(reports, key=lambda report: report.stat().st_mtime_ns).read_bytes())
    if not isinstance(error, RuntimeError) or isinstance(error, RankError):
        return None
    ends = time.monotonic() + GRACE
    while time.monotonic() < ends:
        for other, process in others.items():
            if process.poll():
                return RankError(
                    f"the process of rank {other} ended (exit code {process.returncode}"
                    f"{': killed, perhaps for want of memory' if process.returncode == -9 else ''}); resuming "
                    "continues from the latest epoch"
                )
        time.sleep(0.05)
    return None


# Shared memory


def write_shared(folder: Path, value: object) -> None:
    """Pickle a value with its arrays in a file apart, which `read_shared` maps instead of reading."""
    buffers: list[pickle.PickleBuffer] = []
    head, ends = pickle.dumps(value, protocol=5, buffer_callback=buffers.append), [0]
    with (folder / "arrays").open("wb") as file:
        for buffer in buffers:
            file.write(buffer.raw())
            file.write(bytes(-file.tell() % 64))
            ends.append(file.tell())
        file.write(b"\0")  # a file of nothing cannot be mapped
    sizes = [buffer.raw().nbytes for buffer in buffers]
    (folder / "value").write_bytes(pickle.dumps((head, ends[:-1], sizes)))


def read_shared(folder: Path) -> Any:
    head, starts, sizes = pickle.loads((folder / "value").read_bytes())
    with (folder / "arrays").open("rb") as file:
        # Private: what one process writes to its arrays (none should) the others do not see.
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    views = [memory[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return pickle.loads(head, buffers=views)
