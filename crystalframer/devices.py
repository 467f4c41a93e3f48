"""Names of devices. Needs no torch."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

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


def remedy(device: str) -> str:
    """What to do where this device cannot be used."""
    kind = device.partition(":")[0]
    needs = {
        "cuda": "it needs an NVIDIA GPU with its driver, and a build of torch with CUDA (pytorch.org/get-started); "
        "install them, or ",
        "mps": "it needs macOS on Apple silicon; ",
    }
    return needs.get(kind, "") + "choose another, such as cpu"
