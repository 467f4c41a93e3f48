"""Shards on a Ray cluster: one actor of Ray Data on each device runs the same code on the same shards.

Each machine reads its shards and writes its tables itself; only descriptions of shards are sent. Therefore input,
output and this package must have the same paths on all machines. Ray restarts actors that die.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import torch

from crystalframer.errors import WorkerError
from crystalframer.libraries import require
from crystalframer.screening.plan import Shard
from crystalframer.screening.shards import Screener, ShardResult


def compute_on_ray(
    shards: Iterator[Shard], screener: Screener, report: Callable[[int], object], n_workers: int, address: str
) -> Generator[ShardResult]:
    """Results in the order in which the actors finish them.

    Args:
        n_workers: number of actors. Each has one GPU if the cluster has GPUs, else one CPU core.
        address: address of the cluster: `auto` for the cluster of this machine, `local` for a new one on it.

    Raises:
        WorkerError: Ray is not installed, there is no such cluster, or an actor raised an error.
    """
    ray = require("ray", "a cluster", "ray", WorkerError)
    require("ray.data", "a cluster", "ray", WorkerError)
    work = [{"shard": pickle.dumps(shard)} for shard in shards]
    if not work:
        return
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise WorkerError(
                f"there is no Ray cluster at {address!r} ({error}); `ray start --head` starts one", value=address
            ) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    screener = screener.for_processes("cuda" if has_gpus else "cpu")
    screener = replace(screener, folder=screener.folder.absolute())
    results = ray.data.from_items(work, override_num_blocks=len(work)).map(
        _Actor,  # type: ignore[arg-type]
        fn_constructor_args=(pickle.dumps(screener), has_gpus),
        compute=ray.data.ActorPoolStrategy(size=n_workers),
        num_cpus=0 if has_gpus else 1,
        num_gpus=1 if has_gpus else 0,
    )
    for row in results.iter_rows():
        result: ShardResult = pickle.loads(row["result"])
        report(result.n_structures)
        yield result


class _Actor:
    """A model on one device."""

    def __init__(self, content: bytes, has_gpu: bool) -> None:
        if not has_gpu:
            torch.set_num_threads(1)
        self._screener: Screener = pickle.loads(content)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": pickle.dumps(self._screener(pickle.loads(row["shard"]), lambda _: None))}
