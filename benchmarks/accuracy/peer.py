"""One job of a peer, in the peers' own environment: crystalframer is not imported.

`python -m benchmarks.accuracy.peer FOLDER`, see `jobs`.
"""

from __future__ import annotations

import copy
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.accuracy.budget import SCHEDULES, Clock
from benchmarks.accuracy.jobs import Job, JobFolder, Outcome, work
from benchmarks.accuracy.recipes import Recipe

SAY_EVERY = 20.0
"""Seconds between two lines of progress."""
LARGEST_PREDICTED = 64
"""Crystals of a batch without gradients."""


class Part:
    """Crystals of one part with their graphs."""

    def __init__(self, peer: peers.Peer, saved: Any, name: str, say: Callable[[str], None]) -> None:
        offsets = saved[f"{name}.offsets"]
        numbers, positions, lattice = (saved[f"{name}.{f}"] for f in ("atomic_numbers", "positions", "lattice"))
        self.labels = torch.from_numpy(saved[f"{name}.labels"]).float()
        self.ids = saved[f"{name}.ids"]
        self.graphs = []
        for row, (first, last) in enumerate(itertools.pairwise(offsets)):
            say(f"graphs of the {name} part: {row:,} of {len(self.labels):,}")
            try:
                self.graphs.append(peer.graph(_structure(numbers[first:last], positions[first:last], lattice[row])))
            except Exception as error:
                raise RuntimeError(
                    f"no graph of crystal {self.ids[row]} ({name}, row {row + 1}): {type(error).__name__}: {error}"
                ) from error

    def __len__(self) -> int:
        return len(self.graphs)


def _structure(numbers: np.ndarray, positions: np.ndarray, lattice: np.ndarray) -> Any:
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(lattice), numbers.tolist(), positions, coords_are_cartesian=True)


def shuffled(n_crystals: int, size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Batches of rows, epoch after epoch; an incomplete last one is left out unless it is the only one."""
    size = min(size, n_crystals)
    while True:
        order = torch.randperm(n_crystals, generator=generator).tolist()
        yield from (order[first : first + size] for first in range(0, n_crystals - size + 1, size))


class Training:
    """Steps until the budget ends, and the weights that were best on the held-out crystals."""

    def __init__(self, peer: peers.Peer, recipe: Recipe, train: Part, holdout: Part, clock: Clock) -> None:
        self.peer, self.recipe, self.train, self.holdout, self.clock = peer, recipe, train, holdout, clock
        self.mean, self.std = train.labels.mean(), train.labels.std()
        self.optimizer = _optimizer(peer.model, recipe)
        self.history: list[tuple[float, float, float]] = []
        self.best: dict[str, Tensor] = {}
        self.n_seen = 0

    @property
    def epochs(self) -> float:
        return self.n_seen / len(self.train)

    def run(self, seed: int, say: Callable[[str], None]) -> None:
        started = self.clock.elapsed
        rows = shuffled(len(self.train), self.recipe.batch_size, torch.Generator().manual_seed(seed))
        size = min(self.recipe.batch_size, len(self.train))
        steps_per_epoch = max(1, len(self.train) // size)
        longest_step, looking = 0.0, 0.0
        for n_steps, batch in enumerate(rows, start=1):
            # Kept for the last look at the held-out crystals: until one was timed, at most what as many steps take.
            reserve = longest_step + (looking or longest_step * len(self.holdout) / size)
            if n_steps > 1 and self.clock.left <= reserve:
                break
            begun = self.clock.elapsed
            progress = (begun - started) / max(self.clock.budget - reserve - started, 1e-9)
            self.step(batch, min(max(progress, 0.0), 1.0))
            longest_step = max(longest_step, self.clock.elapsed - begun)
            if n_steps % steps_per_epoch == 0:
                begun = self.clock.elapsed
                self.look()
                looking = self.clock.elapsed - begun
            say(f"epoch {self.epochs:.1f}" + (f", held out {self.history[-1][2]:.4g}" if self.history else ""))
        if not self.history or self.history[-1][1] < self.epochs:
            self.look()

    def step(self, rows: Sequence[int], progress: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * SCHEDULES[self.recipe.schedule](progress)
        self.peer.model.train()
        wanted = (self.train.labels[rows] - self.mean) / self.std
        deviation = self.peer.predict(self.peer.batch([self.train.graphs[row] for row in rows])) - wanted
        loss = deviation.abs().mean() if self.recipe.loss == "l1" else deviation.square().mean()
        if not bool(loss.isfinite()):
            raise RuntimeError(f"the loss is not finite in epoch {self.epochs:.1f}")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.n_seen += len(rows)

    def look(self) -> None:
        """Score the held-out crystals, and keep the weights if they are the best so far."""
        error = self.mae(self.holdout)
        if not self.history or error < min(past for _, _, past in self.history):
            self.best = copy.deepcopy(self.peer.model.state_dict())
        self.history.append((self.clock.elapsed, self.epochs, error))

    def mae(self, part: Part) -> float:
        return float((self.predictions(part) - part.labels).abs().mean())

    def predictions(self, part: Part) -> Tensor:
        """In the unit of the labels."""
        self.peer.model.eval()
        found = []
        with torch.no_grad():
            for first in range(0, len(part), LARGEST_PREDICTED):
                graphs = part.graphs[first : first + LARGEST_PREDICTED]
                found.append(self.peer.predict(self.peer.batch(graphs)).view(-1))
        return torch.cat(found) * self.std + self.mean


def _optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
        )
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)


def run(job: Job, folder: JobFolder) -> Outcome:
    """Train and score."""
    recipe = Recipe(**job.settings)
    torch.set_num_threads(job.n_threads)
    # Gaussians of far neighbours in float32 lie below the normal numbers, which makes a step of CGCNN take 4 times as
    # long. They add nothing to the result.
    torch.set_flush_denormal(True)
    torch.manual_seed(job.seed)
    peer = getattr(peers, recipe.adapter)()
    clock = Clock(60.0 * job.minutes, job.clock)
    say = _speaker(job, clock)
    saved = np.load(folder.data)
    train, holdout = (Part(peer, saved, name, say) for name in ("train", "validation"))
    preparing = clock.elapsed
    training = Training(peer, recipe, train, holdout, clock)
    training.run(job.seed, say)
    wall, cpu = clock.wall_seconds, clock.cpu_seconds
    peer.model.load_state_dict(training.best)
    scored = Part(peer, saved, "test", say)
    predictions = training.predictions(scored)
    _, best_epoch, holdout_mae = min(training.history, key=lambda row: row[2])
    return Outcome(
        mae=float((predictions - scored.labels).abs().mean()),
        holdout_mae=holdout_mae,
        n_epochs=training.epochs,
        best_epoch=best_epoch,
        wall_seconds=wall,
        cpu_seconds=cpu,
        preparing_seconds=preparing,
        n_parameters=sum(parameter.numel() for parameter in peer.model.parameters()),
        version=peer.version,
        history=training.history,
        predictions=predictions.tolist(),
    )


def _speaker(job: Job, clock: Clock) -> Callable[[str], None]:
    """Prints a line now and then."""
    last = [time.monotonic()]

    def say(text: str) -> None:
        if time.monotonic() - last[0] >= SAY_EVERY:
            last[0] = time.monotonic()
            print(
                f"  {job.model}: {text}, {clock.elapsed / 60:.1f} of {job.minutes:g} min", file=sys.stderr, flush=True
            )

    return say


if __name__ == "__main__":
    work(run)
