"""Token estimates without a tokenizer: what windows, limits and uncounted answers are measured with."""

import math

BYTES_PER_TOKEN = 3.5
"""Between source code (about 3 bytes of UTF-8 per token) and English prose (about 4.5)."""


def estimate_tokens(text: str) -> int:
    """Roughly how many tokens `text` is; 0 for empty text, never 0 otherwise."""
    return math.ceil(count_bytes(text) / BYTES_PER_TOKEN)


def count_bytes(text: str) -> int:
    """Length in UTF-8; costs nothing for ASCII."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def bytes_of(tokens: int) -> int:
    """How many bytes fit into `tokens`; the inverse of `estimate_tokens`, rounded down."""
    return int(tokens * BYTES_PER_TOKEN)
