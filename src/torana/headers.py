"""A request's headers: looked up by lower-case name, the first of a repeated one wins.

Clients mostly send the same ones with each request of a connection. What was worked out of them is kept beside them,
and is there for the next request whose head is the same.
"""

import math
import random
from collections.abc import Container, Iterable
from typing import Any

PASSING = frozenset(
    {b"content-length", b"x-request-id", b"x-gitlab-rails-send-start", b"traceparent", b"tracestate", b"date"}
)
"""What changes from each request of a client to its next. Nothing that is kept is worked out of them."""

_UNSEEN = object()

SOON_S = 5
"""At most; who is turned away, or finds nobody to answer, hears a number from one second up to this."""


def soon() -> int:
    """Seconds, jittered, so that those who were turned away together do not come back together."""
    return 1 + int(random.random() * SOON_S)  # noqa: S311 jitter, no secret


def retry_after(seconds: float | None) -> tuple[tuple[bytes, bytes], ...]:
    """The header that says when to come back, for a refusal; nothing where nobody knows."""
    return () if seconds is None else ((b"retry-after", b"%d" % math.ceil(seconds)),)


class Headers:
    """Built once per request from the server's pairs; names arrive in lower case."""

    __slots__ = ("_first", "_passing", "_steady", "has_repeats", "kept", "pairs")

    _passing: list[int]
    """Places of those in PASSING."""
    _steady: list[tuple[bytes, bytes]]
    """The others."""

    def __init__(self, pairs: list[tuple[bytes, bytes]], before: "Headers | None" = None) -> None:
        """`before`: those of the request before this one, on the same connection."""
        self.pairs = pairs
        if before is not None and before._are_alike(pairs):
            self._passing, self._steady = before._passing, before._steady
        else:
            self._passing = [at for at, pair in enumerate(pairs) if pair[0] in PASSING]
            self._steady = [pair for pair in pairs if pair[0] not in PASSING]
        is_same = before is not None and before._steady == self._steady  # byte for byte, and in the same order
        kept = before.kept if before is not None and is_same else {}
        self.kept: dict[Any, Any] = kept
        """What was worked out of these headers, those in PASSING left out: whoever keeps it knows it by a key of their
        own, and sees to it that it still holds."""
        # Reversed, so that of repeated names the first one stays.
        self._first = dict(reversed(pairs))
        self.has_repeats = len(self._first) != len(pairs)
        """Some name came more than once."""

    @classmethod
    def of(cls, items: Iterable[tuple[str, str]]) -> "Headers":
        """As clients send such texts: in UTF-8."""
        return cls([(name.lower().encode(), value.encode("utf-8", "surrogateescape")) for name, value in items])

    def _are_alike(self, pairs: list[tuple[bytes, bytes]]) -> bool:
        """Whether those are these, but for the values of passing ones: mostly so, and told at once."""
        if len(pairs) != len(self.pairs):
            return False
        others = pairs.copy()
        for at in self._passing:
            if pairs[at][0] not in PASSING:
                return False
            others[at] = self.pairs[at]
        return others == self.pairs

    def count(self, name: bytes) -> int:
        """How often it came."""
        return [each for each, _ in self.pairs].count(name) if self.has_repeats else int(name in self._first)

    def get(self, name: bytes) -> str | None:
        """The value as text, outer white space removed; None where the header is absent."""
        found: str | None = self.kept.get(name, _UNSEEN)
        if found is not _UNSEEN:
            return found
        value = self._first.get(name)
        # Of the bytes: as text, the last byte of many a letter in UTF-8 would count as white space.
        text = None if value is None else value.strip().decode("latin-1")
        if name not in PASSING:
            self.kept[name] = text
        return text

    def body_bytes(self) -> int:
        """How long the body is, as the head says; 0 where it does not."""
        length = self.get(b"content-length")
        return int(length) if length is not None and length.isdigit() else 0

    def text(self, name: bytes) -> str:
        """As `get`, but absent reads as empty."""
        return self.get(name) or ""

    def select(self, names: Container[bytes]) -> dict[str, str]:
        """Those of `names` that came, as text; repeated ones are joined, as HTTP has it."""
        found: dict[str, str] = {}
        for name, value in self.pairs:
            if name in names:
                key, text = name.decode(), value.strip().decode("latin-1")
                found[key] = f"{found[key]}, {text}" if key in found else text
        return found

    def is_ambiguous(self, name: bytes) -> bool:
        """True where the header came several times with values that differ: who reads the last one sees another."""
        return self.has_repeats and len({value.strip() for key, value in self.pairs if key == name}) > 1
