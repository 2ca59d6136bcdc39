"""What providers tell of usage: believed where it can be, and made whole by our own count."""

from msgspec.structs import replace as replace_fields

from torana.chat import Usage

MAX_TOKENS = 1_000_000_000
"""Of one call; ten thousand times the longest context window is a fault of whoever counted."""


def complete(told: Usage | None, asked_tokens: int, answered_tokens: int) -> Usage:
    """What an answer has cost until here: as the provider told, where it did, and else as we count; marked as such."""
    if told is None or not is_possible(told):
        return Usage(
            input_tokens=asked_tokens, output_tokens=answered_tokens, is_counted=True, is_suspect=told is not None
        )
    # Providers tell the input at once, and the output mostly at the end.
    if told.output_tokens >= answered_tokens:
        return told
    return replace_fields(told, output_tokens=answered_tokens, is_counted=True)


def is_told(usage: Usage | None) -> bool:
    """Whether the provider has told all of what a whole answer used, and it can be."""
    return usage is not None and not usage.is_counted and is_possible(usage)


def is_possible(usage: Usage) -> bool:
    """False for numbers that no call can have: then we count for ourselves."""
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return (
        not usage.is_suspect
        and 0 <= usage.cache_read_tokens <= cached <= usage.input_tokens <= MAX_TOKENS
        and 0 <= usage.reasoning_tokens <= usage.output_tokens <= MAX_TOKENS
    )
