"""What commands print, with nothing in it that commands a terminal.

Callers choose names that reports show, model servers what lists and answers say, and an operator reads it.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

_COMMANDS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]|\r(?!\n)")
"""All controls but tabs and the ends of lines; a lone carriage return writes over what stands there. And halves of
letters, which no output takes."""


def plain(text: str) -> str:
    """Each control as its escape, which JSON and YAML know as well."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Plain(TextIOWrapper):
    def write(self, text: str, /) -> int:
        return super().write(plain(text))


@contextmanager
def plain_output() -> Iterator[None]:
    """For as long as a command runs, on stdout and on stderr."""
    with _plain("stdout"), _plain("stderr"):
        yield


@contextmanager
def _plain(name: str) -> Iterator[None]:
    before = getattr(sys, name)
    if not isinstance(before, TextIOWrapper):
        yield
        return
    before.flush()
    # What the terminal's encoding does not have is told as an escape as well.
    errors = "backslashreplace" if before.errors == "strict" else before.errors
    stream = _Plain(
        before.buffer, before.encoding, errors, line_buffering=before.line_buffering,
        write_through=before.write_through,
    )  # fmt: skip
    setattr(sys, name, stream)
    try:
        yield
    finally:
        if getattr(sys, name) is stream:
            setattr(sys, name, before)
            stream.detach()  # flushes; what it wrote to stays open
