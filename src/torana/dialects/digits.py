"""Numbers without an end, refused while they are still coming: to read one whole costs more than many good answers."""

import re
from collections.abc import Sequence

from torana.errors import ProviderBroke

MAX_DIGITS = 64 * 1024
"""Parts of nothing but digits that hold more together are a number that nobody means, or a text."""

_escape = re.compile(rb"\\.", re.DOTALL)


class DigitWatch:
    """Asked for each part of one JSON body as it comes. A part with any other byte in it costs a look at that byte."""

    __slots__ = ("_begins_at", "_is_text", "_run_bytes", "_told_to")

    def __init__(self) -> None:
        self._run_bytes = 0
        self._begins_at = 0
        """The first part of the digits that came last."""
        self._told_to = 0
        """Parts before it were searched for quotes, each of them once."""
        self._is_text = False

    def see(self, parts: Sequence[bytes]) -> None:
        """parts  all that came, the last one new; raises ProviderBroke where it belongs to a number without an end."""
        if not parts[-1].isdigit():
            self._run_bytes = 0
            return
        if not self._run_bytes:
            self._begins_at = len(parts) - 1
        before = self._run_bytes
        self._run_bytes += len(parts[-1])
        if before <= MAX_DIGITS < self._run_bytes and not self._stands_in_text(parts):
            raise ProviderBroke("a number without an end")

    def _stands_in_text(self, parts: Sequence[bytes]) -> bool:
        said = _escape.sub(b"", b"".join(parts[self._told_to : self._begins_at]))
        self._told_to = self._begins_at
        self._is_text ^= said.count(b'"') % 2 == 1
        return self._is_text
