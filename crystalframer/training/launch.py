"""Processes that torchrun or SLURM started: which rank of a training this process is. Needs no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from crystalframer import devices
from crystalframer.config import TrainingConfig
from crystalframer.errors import ConfigError, Setting


@dataclass(frozen=True)
class Rank:
    """One of the processes of a training."""

    rank: int
    n_ranks: int
    local_rank: int
    """Its number among the ranks of the same machine."""
    meeting: str
    """Address where the ranks meet, for `torch.distributed`."""


def launched() -> Rank | None:
    """The rank that torchrun or SLURM (srun with more than one task) made of this process; None without them."""
    at = os.environ
    if "TORCHELASTIC_RUN_ID" in at:
        return Rank(int(at["RANK"]), int(at["WORLD_SIZE"]), int(at["LOCAL_RANK"]), "env://")
    # The number of the step, not of the job: a script of sbatch without srun runs once, whatever the job asked for.
    if int(at.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        host = at.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(at["SLURM_STEP_NODELIST"])
        port = at.get("MASTER_PORT") or str(15000 + int(at["SLURM_JOB_ID"]) % 10000)
        meeting = f"tcp://{host}:{port}"
        return Rank(int(at["SLURM_PROCID"]), int(at["SLURM_STEP_NUM_TASKS"]), int(at["SLURM_LOCALID"]), meeting)
    return None


def check_device(device_kind: str) -> None:
    """Check that torch finds a device of this kind, `cpu`, `cuda` or `mps`.

    Raises:
        ConfigError: it does not; the error says what is needed.
    """
    devices.check_present(device_kind, "training.accelerator")
    import torch

    found = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if device_kind in found and not found[device_kind]():
        problem = f"torch finds no such device here; {devices.remedy(device_kind)}"
        raise ConfigError(problem, field="training.accelerator", value=device_kind)


def check(config: TrainingConfig, device_kind: str) -> None:
    """Check that there can be as many ranks as the config asks for.

    Raises:
        ConfigError: there cannot.
    """
    n_devices, n_nodes, own = config.n_devices, config.n_nodes, launched()
    if own is not None:
        n_local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
        if not n_local:
            n_local = own.n_ranks // int(os.environ["SLURM_STEP_NUM_NODES"])
        found = {"n_devices": n_local, "n_nodes": own.n_ranks // n_local}
        for name, wanted in (("n_devices", n_devices), ("n_nodes", n_nodes)):
            if wanted not in (None, found[name]):
                raise ConfigError(
                    f"torchrun or SLURM has started {found['n_nodes']} x {n_local} processes (machines x devices); "
                    "start the number that you want, or leave the setting out",
                    field=f"training.{name}",
                    value=wanted,
                )
    elif (n_nodes or 1) > 1:
        raise ConfigError(
            "several machines are started by torchrun or SLURM, for example with this command on each: "
            f"torchrun --nnodes {n_nodes} --nproc-per-node {n_devices or 1} --rdzv-backend c10d "
            "--rdzv-endpoint FIRST_MACHINE:29500 -m crystalframer train ...",
            field="training.n_nodes",
            value=n_nodes,
        )
    n_local = n_devices or 1
    if own is None and n_local > 1:
        where = {"field": "training.n_devices", "value": n_local}
        if device_kind == "mps":
            advice = "this machine has one GPU; several processes need ", Setting("training.accelerator", "cpu")
            raise ConfigError(*advice, **where)
        import torch

        n_gpus = torch.cuda.device_count()
        if device_kind == "cuda" and n_local > n_gpus:
            raise ConfigError(f"torch finds {n_gpus} GPUs here", **where)
