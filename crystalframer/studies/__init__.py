"""Studies of many trainings: `ablate` compares frame methods, `sweep` searches hyperparameters.

Lightning and Optuna are imported on first use only.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
