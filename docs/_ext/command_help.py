"""The directive `command-help`: what `crystalframer VERB --help` prints."""

from __future__ import annotations

import contextlib
import io
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from crystalframer import cli

ANSI = re.compile(r"\x1b\[[0-9;]*m")


class CommandHelp(SphinxDirective):
    """Shows the help of one command, given by its words, such as `data pack`."""

    has_content = False
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """A literal block with the text."""
        words = self.arguments[0].split() if self.arguments else []
        text = help_of(words)
        return [nodes.literal_block(text, text, language="text", classes=["command-help"])]


def help_of(words: list[str]) -> str:
    """The text that a command prints about itself, in plain letters."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    return ANSI.sub("", printed.getvalue()).strip()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
