"""Count lines of code, without docstrings, comments and blank lines: `python scripts/count_lines.py [FOLDER ...]`."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def count(text: str) -> int:
    """Lines of a module that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def main(folders: list[str]) -> None:
    for folder in folders or ["crystalframer", "viz", "tests", "benchmarks", "scripts"]:
        parts: Counter[str] = Counter()
        for path in sorted(Path(folder).rglob("*.py")):
            below = path.relative_to(folder).parts
            parts[below[0] if len(below) > 1 else "."] += count(path.read_text(encoding="utf-8"))
        shown = ", ".join(f"{name} {number:,}" for name, number in parts.most_common())
        print(f"{folder:14} {sum(parts.values()):7,}   {shown}")


if __name__ == "__main__":
    main(sys.argv[1:])
