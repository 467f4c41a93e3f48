"""The outputs of executed notebooks are looked at, too: `pytest --nbmake --overwrite FOLDER` fails on a bad one."""

from __future__ import annotations

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """After a notebook has run and its outputs are in the file, fail if they are not fit to be read."""
    yield
    if not (getattr(item, "nbmake", False) and item.config.option.overwrite):
        return
    from nbmake.nb_result import NotebookError, NotebookResult
    from nbmake.pytest_items import NotebookFailedException
    from notebook_outputs import complaints, read

    notebook = read(item.path)
    if found := complaints(notebook):
        text = "\n".join(found)
        raise NotebookFailedException(NotebookResult(nb=notebook, error=NotebookError(text, text, -1)))
