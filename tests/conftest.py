"""What every test runs under: few threads, checked array shapes, known seeds."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

# Small tensors gain nothing from more. Notebooks and other child processes inherit the variable.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "2")))

# Without a GPU, CUDA kernels run in Triton's interpreter, which has to be known before Triton is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A shell starts what it puts in the background deaf to Ctrl-C, which the tests of stopping a run send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every annotated argument, result and field of these packages is checked while the tests run; free in production.
install_import_hook(["crystalframer", "viz"], "beartype.beartype")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test's random numbers depend on that test alone, not on which ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def as_in_production() -> Iterator[None]:
    """Without the checks of types and shapes: for what a user's wrong input meets."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):  # not item.keywords, which hold names of folders too
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
