"""Measurements of trained models: pure functions of traces, and of models where a question needs one."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
