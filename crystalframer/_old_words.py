"""Command lines of release 0.1: their order of words works for this release, with a note."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence

N_INPUTS = {"screen": 1, "data pack": 1, "data pack-authors": 3, "convert": 1}
"""Verbs whose output came last, without `--output`, and how many words come before it at least."""
MODEL_FIRST = {"evaluate": None, "calibrate": "--data", "check": "--structures"}
"""Verbs whose model came first, and the option that named what comes first now."""
ENDED = {"--average-ties": (), "--no-average-ties": ("--as-trained",)}
"""Options of release 0.2 of verbs that load a model, and what they are now."""
FLAGS = ("--as-trained", "--no-as-trained", "--lowest", "--no-lowest", "--report", "--no-report", "--help", "-h")
LISTS = ("--structures", "--targets")
"""Options of these verbs without a value, and with any number of values."""


def renewed(verb: str, words: Sequence[str]) -> list[str]:
    """The words that follow a verb as they are now, with a note to standard error if they were not."""
    words = _without_ended(words) if verb in ("predict", *MODEL_FIRST) else words
    things, options = _split(words)
    option, now = MODEL_FIRST.get(verb), None
    if verb in N_INPUTS and len(things) > N_INPUTS[verb] and not {"--output", "-o"} & options.keys():
        now = things[:-1], {**options, "--output": things[-1:]}
    elif verb in MODEL_FIRST and "--model" not in options:
        if option in options:
            now = options.pop(option), {**options, "--model": things} if things else options
        elif (verb == "evaluate" and len(things) == 2) or (verb == "check" and things and _is_checkpoint(things[0])):
            now = things[1:], {**options, "--model": things[:1]}
    if now is None:
        return list(words)
    things, options = now
    words = [*things, *(word for name, values in options.items() for word in (name, *values))]
    print(
        "note: this is the order of release 0.1, which ends with the next release. Now it is\n"
        f"  crystalframer {verb} {shlex.join(words)}",
        file=sys.stderr,
    )
    return words


def _without_ended(words: Sequence[str]) -> list[str]:
    """The words with options that ended replaced, and a note for each."""
    for word in words:
        if word in ENDED:
            now = f"it is now {' '.join(ENDED[word])}" if ENDED[word] else "models are loaded so without it"
            print(f"note: {word} ends with the next release; {now}", file=sys.stderr)
    return [now for word in words for now in ENDED.get(word, (word,))]


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The words that belong to no option, and the values of each option."""
    things: list[str] = []
    options: dict[str, list[str]] = {}
    wanted, values = 0.0, things
    for number, word in enumerate(words):
        if word == "--":
            things += words[number + 1 :]
            break
        if word.startswith("-"):
            option, is_given, value = word.partition("=")
            option = option.replace("_", "-")
            values = options.setdefault(option, [value] if is_given else [])
            wanted = 0 if is_given or option in FLAGS else math.inf if option in LISTS else 1
        elif wanted > 0:
            values.append(word)
            wanted -= 1
        else:
            things.append(word)
    return things, options


def _is_checkpoint(word: str) -> bool:
    from crystalframer.checkpoint import is_checkpoint

    return is_checkpoint(word)
