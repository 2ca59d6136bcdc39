"""What of the code around a cursor fits into a model's input (contract 6.5).

The cursor's neighbourhood comes first: the suffix gets a fixed small share, the prefix what it needs
of the rest, attachments only what is left then.
"""

from dataclasses import dataclass

from torana.code.orders import Cursor
from torana.counting import bytes_of, count_bytes, estimate_tokens

SUFFIX_SHARE = 0.07
_LINE_SEARCH_CHARS = 400
"""How much more is given up so that a cut falls between lines."""


@dataclass(frozen=True, slots=True)
class Window:
    """Texts that fit together. `context` stands before the prefix, on lines of its own."""

    prefix: str
    suffix: str
    context: str = ""
    context_tokens_sent: int = 0
    """What the client attached."""
    context_tokens_used: int = 0
    """What of it entered the prompt."""


def fit(
    cursor: Cursor,
    input_tokens: int,
    *,
    suffix_share: float = SUFFIX_SHARE,
    context_share: float = 1.0,
    uses_context: bool = True,
) -> Window:
    """Cut the code around `cursor` to `input_tokens` in all, estimated.

    The prefix loses its beginning, the suffix its end, the joined attachments their end.
    """
    budget = bytes_of(input_tokens)
    suffix = keep_start(cursor.suffix, int(budget * suffix_share))
    left = budget - count_bytes(suffix)
    prefix = keep_end(cursor.prefix, left)
    # One byte for the line end between attachments and prefix; a prefix that had to be cut leaves no room.
    left = left - count_bytes(prefix) - 1 if len(prefix) == len(cursor.prefix) else 0
    joined = "\n".join(attachment.content for attachment in cursor.context)
    used = keep_start(joined, min(left, int(budget * context_share))) if uses_context else ""
    return Window(prefix, suffix, used, estimate_tokens(joined), estimate_tokens(used))


def keep_end(text: str, limit_bytes: int) -> str:
    """The end of `text`, at most `limit_bytes` of UTF-8; whole letters, whole lines where one begins near."""
    if count_bytes(text) <= limit_bytes:
        return text
    kept = _encode(text)[-limit_bytes:].decode("utf-8", "ignore") if limit_bytes > 0 else ""
    line_end = kept.find("\n", 0, min(_LINE_SEARCH_CHARS, len(kept) // 4))
    return kept[line_end + 1 :]


def keep_start(text: str, limit_bytes: int) -> str:
    """The beginning of `text`; otherwise as `keep_end`."""
    if count_bytes(text) <= limit_bytes:
        return text
    kept = _encode(text)[:limit_bytes].decode("utf-8", "ignore") if limit_bytes > 0 else ""
    line_end = kept.rfind("\n", max(len(kept) - _LINE_SEARCH_CHARS, len(kept) * 3 // 4))
    return kept[: line_end + 1] if line_end >= 0 else kept


def _encode(text: str) -> bytes:
    # Readers have replaced lone surrogates already; this only keeps the function total.
    return text.encode("utf-8", "replace")
