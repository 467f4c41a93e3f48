"""Which of several processes of a training this one is, by torchrun or SLURM. Without torch: the command line asks."""

from __future__ import annotations

import os
from dataclasses import dataclass

from crystalframer.config import TrainingConfig
from crystalframer.errors import ConfigError


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of a training."""

    rank: int
    n_ranks: int
    local_rank: int
    """Among those of the same machine."""
    meeting: str
    """Where they meet: an address for `torch.distributed`."""


def launched() -> Place | None:
    """The place that torchrun or SLURM (srun with more than one task) gave to this process."""
    at = os.environ
    if "TORCHELASTIC_RUN_ID" in at:
        return Place(int(at["RANK"]), int(at["WORLD_SIZE"]), int(at["LOCAL_RANK"]), "env://")
    # Of the step, not of the job: a script of sbatch that does not use srun runs once, whatever was asked for.
    if int(at.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        host = at.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(at["SLURM_STEP_NODELIST"])
        port = at.get("MASTER_PORT") or str(15000 + int(at["SLURM_JOB_ID"]) % 10000)
        meeting = f"tcp://{host}:{port}"
        return Place(int(at["SLURM_PROCID"]), int(at["SLURM_STEP_NUM_TASKS"]), int(at["SLURM_LOCALID"]), meeting)
    return None


def check(config: TrainingConfig, device_kind: str) -> None:
    """That as many ranks can be there as the config asks for.

    Raises:
        ConfigError: not so.
    """
    n_devices, n_nodes, place = config.n_devices, config.n_nodes, launched()
    if place is not None:
        n_local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
        if not n_local:
            n_local = place.n_ranks // int(os.environ["SLURM_STEP_NUM_NODES"])
        found = {"n_devices": n_local, "n_nodes": place.n_ranks // n_local}
        for name, wanted in (("n_devices", n_devices), ("n_nodes", n_nodes)):
            if wanted not in (None, found[name]):
                raise ConfigError(
                    f"training.{name} = {wanted}: torchrun or SLURM has started {found['n_nodes']} x {n_local} "
                    "processes (machines x devices); start as many as you want, or leave the setting out (None)"
                )
    elif (n_nodes or 1) > 1:
        raise ConfigError(
            f"training.n_nodes = {n_nodes}: several machines are started by torchrun or SLURM, for example on each: "
            f"torchrun --nnodes {n_nodes} --nproc-per-node {n_devices or 1} --rdzv-backend c10d "
            "--rdzv-endpoint FIRST_MACHINE:29500 -m crystalframer train ..."
        )
    n_local = n_devices or 1
    if place is None and n_local > 1:
        if device_kind == "mps":
            raise ConfigError(
                f"training.n_devices = {n_local}: this machine has one GPU; training.accelerator cpu has more"
            )
        import torch

        if device_kind == "cuda" and n_local > torch.cuda.device_count():
            raise ConfigError(f"training.n_devices = {n_local}: torch finds {torch.cuda.device_count()} GPUs here")
