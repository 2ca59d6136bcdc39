"""The quality rule: a completion neither begins with the line above it nor ends with the one below.

Compared without the white space around, so that a repetition is found whatever its indentation.
"""

from torana.providers.demo.cursor import open_brackets


def tidy(text: str, before: str, after: str) -> str:
    """`text` as it may be inserted between `before` and `after`; empty where nothing of it may."""
    text = text.rstrip(" \t")
    below = first_line(after)
    while below and text.rstrip().endswith(below):
        text = text.rstrip()[: -len(below)].rstrip(" \t")
        text = _balance(text)
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
