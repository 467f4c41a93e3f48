"""CrystalFramer: predict crystal properties with a transformer, and test what predictions are made of.

    import crystalframer as cf

    cf.predict("structures/*.cif")        # a table, with the shipped weights
    model = cf.fit(cf.preset("demo").config).model
    cf.evaluate("demo", model)
    cf.trace("NaCl.cif", model)           # attention and frames, layer by layer

The file `__init__.pyi` lists the public names; each is imported when it is first used, so that importing the package
is quick and needs no library that is not used.
"""

import random
from typing import Any

import lazy_loader

from crystalframer._moved import MOVED, install_old_paths

install_old_paths(__name__, MOVED)

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A public name. Some of the libraries that are imported for it draw random numbers, which are not missed."""
    state = random.getstate()
    try:
        return _load(name)
    finally:
        random.setstate(state)
