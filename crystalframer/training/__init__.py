"""Training: `fit(config)` and what it returns. Lightning is imported on first use only."""

import lazy_loader

from crystalframer._moved import moved_names

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_STUDIES = ("AblationResult", "Choice", "Range", "SweepResult", "ablate", "space_from_words", "sweep")
__getattr__ = moved_names(__name__, dict.fromkeys(_STUDIES, "crystalframer.studies"), _load)
