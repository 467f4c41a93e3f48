"""Names of devices, and which are surely missing. Needs no torch."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

from crystalframer.errors import ConfigError

_TYPES = (
    *("cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga", "maia", "xla", "lazy"),
    *("vulkan", "mps", "meta", "hpu", "mtia", "privateuseone"),
)
"""All that torch knows by itself."""


def check_name(device: str | None) -> None:
    """Check that torch may know a device of this name, such as `cuda:1`. Whether it is there, only torch can tell.

    Raises:
        ConfigError: torch knows none.
    """
    if device is None or re.fullmatch(rf"({'|'.join(_TYPES)})(:\d+)?", device):
        return
    if not entry_points(group="torch.backends"):  # which add devices of other names
        problem = "cannot be used here (torch knows no such device); choose another, such as cpu or cuda"
        raise ConfigError(problem, field="device", value=device)


def check_present(device: str | None, field: str = "device") -> None:
    """Check that a device is not surely missing: that it has a driver. What else is wrong, only torch can tell.

    Raises:
        ConfigError: there is none.
    """
    kind = (device or "").partition(":")[0]
    if (kind == "cuda" and not _has_gpu_driver()) or (kind == "mps" and sys.platform != "darwin"):
        message = f"cannot be used here (there is no driver for it); {remedy(kind)}"
        raise ConfigError(message, field=field, value=device)


def _has_gpu_driver() -> bool:
    """Whether the library is there by which torch reaches NVIDIA GPUs, or a device of ROCm, called cuda, too."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def remedy(device: str) -> str:
    """What to do where this device cannot be used."""
    kind = device.partition(":")[0]
    needs = {
        "cuda": "it needs an NVIDIA GPU with its driver, and a build of torch with CUDA (pytorch.org/get-started); "
        "install them, or ",
        "mps": "it needs macOS on Apple silicon; ",
    }
    return needs.get(kind, "") + "choose another, such as cpu"
