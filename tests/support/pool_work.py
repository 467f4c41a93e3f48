"""What the processes of a pool do in tests: they import it by name."""

from __future__ import annotations

import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from crystalframer.errors import DataError


def describe(item: int, report: Any) -> dict[str, Any]:
    """What this process sees."""
    print("this is no message")
    import torch  # here: most work of these tests does without

    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"square": item * item, "threads": torch.get_num_threads(), "gpu": gpu, "pid": os.getpid()}


def ask(item: int, report: Any) -> int:
    report(item)
    return report(item, wait=True) + report(item, wait=True)


class Multiply:
    def __init__(self, factors: np.ndarray) -> None:
        self.factors = factors

    def __call__(self, item: int, report: Any) -> float:
        self.factors[item] *= 2.0  # a change that no other process sees
        return float(self.factors[item])


class DieOf:
    """Ends its process with the exit code 9 at an item, so many times."""

    def __init__(self, item: int, times: int, folder: Path) -> None:
        self.item, self.times, self.folder = item, times, folder

    def __call__(self, item: int, report: Any) -> int:
        n_deaths = len(list(self.folder.iterdir()))
        if item == self.item and n_deaths < self.times:
            (self.folder / str(n_deaths)).touch()
            os._exit(9)
        return item


class DieWhenRead:
    """Ends the process that unpickles it, but for the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        try:
            (self.folder / "died").touch(exist_ok=False)
        except FileExistsError:
            return
        os._exit(9)

    def __call__(self, item: int, report: Any) -> int:
        return item


class Unreadable:
    """Cannot be unpickled, as what a script defines."""

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, ("not_there",)

    def __call__(self, item: int, report: Any) -> None:
        pass


class Unportable(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def fail(item: int, report: Any) -> None:
    if item == 1:
        raise DataError("is no number", path="a.csv", row=3)
    raise Unportable("not", "portable")


def wait_for_ever(item: int, report: Any) -> None:
    report("begun")
    time.sleep(3600)
