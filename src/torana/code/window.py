"""What of the code around a cursor fits into a model's input (contract 6.5).

The cursor's neighbourhood comes first: the suffix gets a fixed small share, the prefix what it needs
of the rest, attachments only what is left then.
"""

from typing import Protocol

import msgspec

from torana.code.orders import Cursor
from torana.counting import bytes_of, count_bytes, estimate_tokens

SUFFIX_SHARE = 0.07
_LINE_SEARCH_CHARS = 400
"""How much more is given up so that a cut falls between lines."""


class Ruler(Protocol):
    """How long texts are, in a unit of its own, and where to cut them."""

    def amount(self, tokens: int) -> int:
        """How much text so many tokens are."""

    def size(self, text: str) -> int: ...

    def holds(self, text: str, limit: int) -> bool:
        """True where `text` is no longer than `limit`."""

    def end_of(self, text: str, limit: int) -> str:
        """The end of a longer text, whole letters."""

    def start_of(self, text: str, limit: int) -> str: ...


class ByteRuler:
    """Measures in bytes of UTF-8, of which a token is estimated to have some number."""

    def amount(self, tokens: int) -> int:
        return bytes_of(tokens)

    def size(self, text: str) -> int:
        return count_bytes(text)

    def holds(self, text: str, limit: int) -> bool:
        return count_bytes(text) <= limit

    def end_of(self, text: str, limit: int) -> str:
        return _encode(text)[-limit:].decode("utf-8", "ignore") if limit > 0 else ""

    def start_of(self, text: str, limit: int) -> str:
        return _encode(text)[:limit].decode("utf-8", "ignore") if limit > 0 else ""


BYTES = ByteRuler()


class Window(msgspec.Struct, frozen=True):
    """Texts that fit together. `context` stands before the prefix, on lines of its own."""

    prefix: str
    suffix: str
    context: str = ""
    context_tokens_sent: int = 0
    """What the client attached."""
    context_tokens_used: int = 0
    """What of it entered the prompt."""
    is_cut: bool = False
    """Something was left out for want of room."""


def fit(
    cursor: Cursor,
    input_tokens: int,
    *,
    ruler: Ruler = BYTES,
    context_share: float = 1.0,
    uses_context: bool = True,
) -> Window:
    """Cut the code around `cursor` to `input_tokens` in all, as `ruler` measures.

    The prefix loses its beginning, the suffix its end, the joined attachments their end.
    """
    budget = ruler.amount(input_tokens)
    suffix = keep_start(cursor.suffix, int(budget * SUFFIX_SHARE), ruler)
    left = budget - ruler.size(suffix)
    prefix = keep_end(cursor.prefix, left, ruler)
    if not cursor.context:
        return Window(prefix, suffix, is_cut=len(prefix) + len(suffix) < len(cursor.prefix) + len(cursor.suffix))
    # One for the line end between attachments and prefix; a prefix that had to be cut leaves no room.
    left = left - ruler.size(prefix) - 1 if len(prefix) == len(cursor.prefix) else 0
    joined = "\n".join(attachment.content for attachment in cursor.context)
    used = keep_start(joined, min(left, int(budget * context_share)), ruler) if uses_context else ""
    is_cut = len(prefix) + len(suffix) < len(cursor.prefix) + len(cursor.suffix) or (
        uses_context and len(used) < len(joined)
    )
    return Window(prefix, suffix, used, estimate_tokens(joined), estimate_tokens(used), is_cut)


def keep_end(text: str, limit: int, ruler: Ruler = BYTES) -> str:
    """The end of `text`, at most `limit` of it; whole letters, whole lines where one begins near."""
    if ruler.holds(text, limit):
        return text
    kept = ruler.end_of(text, limit)
    line_end = kept.find("\n", 0, min(_LINE_SEARCH_CHARS, len(kept) // 4))
    return kept[line_end + 1 :]


def keep_start(text: str, limit: int, ruler: Ruler = BYTES) -> str:
    """The beginning of `text`; otherwise as `keep_end`."""
    if ruler.holds(text, limit):
        return text
    kept = ruler.start_of(text, limit)
    line_end = kept.rfind("\n", max(len(kept) - _LINE_SEARCH_CHARS, len(kept) * 3 // 4))
    return kept[: line_end + 1] if line_end >= 0 else kept


def _encode(text: str) -> bytes:
    # Readers have replaced lone surrogates already; this only keeps the function total.
    return text.encode("utf-8", "replace")
