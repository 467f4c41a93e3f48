"""Hyperparameter search: which values of some fields of a config give the lowest validation loss.

`space` says what may be tried, `study` chooses what is tried next and keeps the journal, `result` reads what came of
it, and `run` keeps the books.
"""
