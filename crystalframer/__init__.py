"""CrystalFramer: predict crystal properties with a transformer, and see why.

    import crystalframer as cf

    cf.predict("structures/*.cif")        # a table, with the shipped weights
    model = cf.fit(cf.preset("demo").config).model
    cf.evaluate("demo", model)
    cf.trace("NaCl.cif", model)           # attention and frames, layer by layer

Names are loaded on first use, so that importing the package is quick and needs no library that is not used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crystalframer import errors
from crystalframer._moved import MOVED, install_old_paths
from crystalframer._version import __version__

if TYPE_CHECKING:
    from crystalframer.analysis.check import check
    from crystalframer.authors import load_authors_checkpoint
    from crystalframer.calculator import CrystalFramerCalculator
    from crystalframer.checkpoint import save
    from crystalframer.config import Config, DataConfig, ModelConfig, Target, TrainingConfig
    from crystalframer.crystals.crystal import Crystal
    from crystalframer.datasets.dataset import CrystalDataset
    from crystalframer.datasets.sources import dataset
    from crystalframer.errors import (
        AuthorsCheckpointError,
        CheckpointError,
        ConfigError,
        CrystalError,
        CrystalFramerError,
        DataError,
        MotifError,
        PolyhedronError,
        RankError,
        ScreeningError,
        TraceError,
        TrainingError,
        UncertaintyError,
        UnknownTarget,
        WorkerError,
    )
    from crystalframer.estimator import CrystalFramerRegressor
    from crystalframer.evaluation import calibrate, evaluate
    from crystalframer.model.network import CrystalFramer
    from crystalframer.prediction import load, predict, trace
    from crystalframer.presets import PRESETS, preset
    from crystalframer.reading.inputs import read, read_all
    from crystalframer.screening import read_screen, screen
    from crystalframer.studies import Choice, Range, ablate, sweep
    from crystalframer.traces import CrystalTrace
    from crystalframer.training import fit

__all__ = [
    "PRESETS",
    "AuthorsCheckpointError",
    "CheckpointError",
    "Choice",
    "Config",
    "ConfigError",
    "Crystal",
    "CrystalDataset",
    "CrystalError",
    "CrystalFramer",
    "CrystalFramerCalculator",
    "CrystalFramerError",
    "CrystalFramerRegressor",
    "CrystalTrace",
    "DataConfig",
    "DataError",
    "ModelConfig",
    "MotifError",
    "PolyhedronError",
    "Range",
    "RankError",
    "ScreeningError",
    "Target",
    "TraceError",
    "TrainingConfig",
    "TrainingError",
    "UncertaintyError",
    "UnknownTarget",
    "WorkerError",
    "__version__",
    "ablate",
    "calibrate",
    "check",
    "dataset",
    "evaluate",
    "fit",
    "load",
    "load_authors_checkpoint",
    "predict",
    "preset",
    "read",
    "read_all",
    "read_screen",
    "save",
    "screen",
    "sweep",
    "trace",
]

_HOME = {
    **dict.fromkeys(errors.__all__, "errors"),
    "PRESETS": "presets",
    "Choice": "studies",
    "Config": "config",
    "Crystal": "crystals.crystal",
    "CrystalDataset": "datasets.dataset",
    "CrystalFramer": "model.network",
    "CrystalFramerCalculator": "calculator",
    "CrystalFramerRegressor": "estimator",
    "CrystalTrace": "traces",
    "DataConfig": "config",
    "ModelConfig": "config",
    "Range": "studies",
    "Target": "config",
    "TrainingConfig": "config",
    "ablate": "studies",
    "check": "analysis.check",
    "calibrate": "evaluation",
    "dataset": "datasets.sources",
    "evaluate": "evaluation",
    "fit": "training",
    "load": "prediction",
    "load_authors_checkpoint": "authors",
    "predict": "prediction",
    "preset": "presets",
    "read": "reading.inputs",
    "read_all": "reading.inputs",
    "read_screen": "screening",
    "save": "checkpoint",
    "screen": "screening",
    "sweep": "studies",
    "trace": "prediction",
}
"""Module of each public name."""

install_old_paths(__name__, MOVED)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
