"""Shards on a Ray cluster: one actor of Ray Data on each device, which runs the same code on the same shards.

Every machine reads its shards and writes its tables by itself; only their descriptions travel. So input, output and
this package must be there on all of them under the same names. What dies is started again by Ray.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import torch

from crystalframer.errors import WorkerError
from crystalframer.screening.plan import Shard
from crystalframer.screening.shards import Screener, ShardResult
from crystalframer.screening.workers import on_cpu, on_device


def compute_on_ray(
    shards: Iterator[Shard], screener: Screener, report: Callable[[int], object], n_workers: int, address: str
) -> Generator[ShardResult]:
    """Results as they come from the actors.

    Args:
        n_workers: actors; each has one GPU if the cluster has any and the model is not held to the CPU, else one core.
        address: of the cluster; `auto` for the one that this machine belongs to, `local` for one made here and now.

    Raises:
        WorkerError: ray is not installed, there is no such cluster, or an actor raised an error.
    """
    try:
        import ray  # type: ignore[import-not-found]
        import ray.data  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise WorkerError("a Ray cluster needs ray: pip install 'crystalframer[ray]'") from error

    work = [{"shard": pickle.dumps(shard)} for shard in shards]
    if not work:
        return
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise WorkerError(
                f"there is no Ray cluster at {address!r} ({error}); `ray start --head` makes one"
            ) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    screener = replace(screener, folder=screener.folder.absolute())
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    results = ray.data.from_items(work, override_num_blocks=len(work)).map(
        _Actor,  # type: ignore[arg-type]
        fn_constructor_args=(pickle.dumps(on_cpu(screener)), has_gpus),
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
        self._screener = on_device(pickle.loads(content), "cuda" if has_gpu else "cpu")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": pickle.dumps(self._screener(pickle.loads(row["shard"]), _ignore))}


def _ignore(_: int) -> None:
    pass
