"""The quality rule: a completion neither begins with the line above it nor ends with the one below.

Compared without the white space around, so that a repetition is found whatever its indentation.
"""

import re

from torana.providers.demo.cursor import open_brackets

_TELLING = re.compile(r"\w")


def tidy(text: str, before: str, after: str) -> str:
    """`text` as it may be inserted between `before` and `after`; empty where nothing of it may."""
    text = text.rstrip(" \t")
    below = first_line(after)
    while below and text.rstrip().endswith(below):
        shorter = text.rstrip()[: -len(below)].rstrip(" \t")
        if not _TELLING.search(below) and last_line(text) != below and open_brackets(last_line(shorter))[0]:
            break  # it closes what its own line has opened
        text = _balance(shorter)
    above = last_line(before)
    return "" if above and text.strip().startswith(above) else text


def last_line(code: str) -> str:
    """The last line that is not blank, stripped."""
    return code.rstrip().rsplit("\n", 1)[-1].strip()


def first_line(code: str) -> str:
    """The first line that is not blank, stripped."""
    return code.lstrip().split("\n", 1)[0].strip()


def _balance(text: str) -> str:
    """Whole lines are given up at the end until nothing stays open; a single line is left as it is."""
    while "\n" in text and open_brackets(text)[0]:
        text = text.rsplit("\n", 1)[0]
    return text
