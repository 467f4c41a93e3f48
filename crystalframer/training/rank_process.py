"""The process of a rank that `fit` starts on its machine: `python -m crystalframer.training.rank_process`."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import traceback
from pathlib import Path

from crystalframer import files
from crystalframer.training import ranks
from crystalframer.training.launch import Place


def main(folder: Path, n_ranks: int, on_cuda: bool, rank: int) -> int:
    """Do the work that rank 0 has left in the folder."""
    # A Ctrl-C or a scheduler reaches all processes; when to end is for rank 0 to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_rank_0, daemon=True).start()
    try:
        work = ranks.read_shared(folder)
        ranks.started_file(folder, rank).touch()
        ranks.join(Place(rank, n_ranks, rank, ranks.meeting(folder)), on_cuda)
        work()
    except BaseException as error:
        _report(error, ranks.error_file(folder, rank), rank)
        # Not `leave`: it may wait for the others.
        os._exit(1)
    ranks.leave()
    return 0


def _report(error: BaseException, path: Path, rank: int) -> None:
    """Tell rank 0, whole or not at all."""
    try:
        error.add_note(f"in the process of rank {rank}:\n{''.join(traceback.format_exception(error))}")
        said = pickle.dumps(error)
        pickle.loads(said)
    except Exception:
        said = pickle.dumps(ranks.RankError(f"in the process of rank {rank}: {type(error).__name__}: {error}"))
    with contextlib.suppress(OSError):  # rank 0 may be gone, and the folder with it
        files.write(path, said)


def _end_with_rank_0() -> None:
    """Its end of the pipe closes however it ends."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), bool(int(sys.argv[3])), int(sys.argv[4])))
