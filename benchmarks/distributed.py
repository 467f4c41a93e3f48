"""Speed-up by a second process or GPU: milliseconds per crystal in an epoch of `fit`, and where time is lost.

The batch size is that of all processes together, so all candidates take the same steps. Two more rows explain the
difference between one process and several: the steps of all processes without any exchange, and the exchange of
gradients alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import distributed as dist

import crystalframer as cf
from benchmarks import command, inputs
from benchmarks.loader import epochs_within_fit
from benchmarks.ours import Ours
from benchmarks.report import Report, Row
from benchmarks.timing import Timing, synchronise
from crystalframer.config import Config
from crystalframer.crystals.loading import BatchOrder, PreparedCrystals, prepare, train_loader
from crystalframer.training import ranks

N_EXCHANGES = 20


def steps_at_once(config: Config, crystals: PreparedCrystals, n_passes: int, n_threads: int) -> list[float]:
    """Seconds of the steps alone on the batches of this rank, while other ranks do the same, for each pass."""
    torch.set_num_threads(n_threads)
    device = _device(config)
    batches = [
        b.to(device) for b in train_loader(crystals, config.training, rank=ranks.rank(), n_ranks=ranks.n_ranks())
    ]
    ours, seconds = Ours(config, batches[0], "auto"), []
    for number in range(n_passes + 1):
        ranks.gather(None)  # start together
        started = time.perf_counter()
        for batch in batches:
            ours.step(batch)
        synchronise(device)
        if number:  # the first compiles
            seconds.append(time.perf_counter() - started)
    return [max(times) for times in zip(*ranks.gather(seconds), strict=True)]


def exchanges(config: Config, n_parameters: int, n_passes: int) -> list[float]:
    """Seconds of one exchange of gradients and of the number of labels, all ranks doing nothing else."""
    device = _device(config)
    gradients, n_labels, seconds = torch.ones(n_parameters, device=device), torch.ones((), device=device), []
    for number in range(n_passes + 1):
        ranks.gather(None)
        started = time.perf_counter()
        for _ in range(N_EXCHANGES):
            dist.all_reduce(gradients.fill_(1.0))
            ranks.total(n_labels)
        synchronise(device)
        if number:
            seconds.append((time.perf_counter() - started) / N_EXCHANGES)
    return [max(times) for times in zip(*ranks.gather(seconds), strict=True)]


def both(config: Config, crystals: PreparedCrystals, n_passes: int, n_threads: int) -> tuple[list[float], list[float]]:
    """The work of a process."""
    n_parameters = sum(parameter.numel() for parameter in cf.CrystalFramer(config.model).parameters())
    return steps_at_once(config, crystals, n_passes, n_threads), exchanges(config, n_parameters, n_passes)


def _device(config: Config) -> torch.device:
    return torch.device("cpu" if config.training.accelerator == "cpu" else f"cuda:{torch.cuda.current_device()}")


def measure(options: argparse.Namespace, report: Report) -> None:
    sample = inputs.sample(options)
    n_crystals, n = len(sample.dataset), options.devices
    config = sample.config(options.preset)
    training = replace(
        config.training,
        batch_size=min(options.batch, n_crystals),
        accelerator=torch.device(options.device).type,
        n_threads=options.threads,
        drop_last=False,
    )
    config = replace(config, training=training)
    report.data |= {"name": sample.name, "preset": options.preset, "batch": training.batch_size, "devices": n}

    seconds: dict[int, list[float]] = {1: [], n: []}
    for _ in range(options.passes):
        for n_devices, measured in seconds.items():
            several = replace(training, n_devices=n_devices)
            measured.extend(epochs_within_fit(replace(config, training=several), sample.dataset, 1).seconds)
    crystals = prepare(sample.dataset, config.model.radius, config.model.target_names)
    work = partial(both, config, crystals, options.passes, options.threads)
    with ranks.followers(n, work, training.accelerator == "cuda"):
        at_once, exchange = work()

    order = train_loader(crystals, training, n_ranks=n).sampler
    assert isinstance(order, BatchOrder)
    loads = [[crystals.n_edges[share].sum() for share in order.shares(rows)] for rows in order.batches(0)]
    n_steps, one = len(loads), Timing(tuple(seconds[1]))
    title = f"epoch, {n_steps} batches of {training.batch_size}"
    for name, timing in (
        ("1 process", one),
        (f"{n} processes", Timing(tuple(seconds[n]))),
        (f"{n} processes, bare steps, nothing exchanged", Timing(tuple(at_once))),
        ("exchange of gradients alone", Timing(tuple(n_steps * np.array(exchange)))),
    ):
        ratio = timing.median / one.median
        row = Row(title, name, cf.__version__, "ms/crystal", 1e3 * timing.median / n_crystals, timing, ratio)
        report.rows.append(row)
    imbalance = float(np.mean([max(edges) / np.mean(edges) for edges in loads])) - 1.0
    report.notes += [
        f"An exchange of gradients takes {1e3 * median(exchange):.2f} ms. The largest share of a batch has "
        f"{imbalance:.2%} more edges than the mean share.",
        "Rows 1 and 2 were measured in turns, the others after them.",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command.parser("distributed", "What further processes or GPUs are worth in training.")
    parser.add_argument(
        "--devices", type=int, default=2, help="number of processes, or of GPUs with --device cuda (default: 2)"
    )
    parser.add_argument(
        "--batch", type=int, default=64, help="number of crystals in a batch, over all processes (default: 64)"
    )
    parser.add_argument("--preset", default="default", help="preset (default: default)")
    inputs.add_options(parser, n_crystals=512)
    parser.set_defaults(threads=1)
    options = command.parse(parser, arguments)
    with command.session(options) as report:
        measure(options, report)


if __name__ == "__main__":
    # Other processes look for the functions above by their module's name, which is not "__main__" there.
    from benchmarks.distributed import main as run

    run()
