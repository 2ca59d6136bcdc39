"""What a call is expected to use, before it is sent: tokens from the rendered prompt, money from the list price.

An upper estimate of the output, since nobody knows it: what the request allows. What was too much is free again
when the call has ended.
"""

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING
from typing import Any

import msgspec

from torana.catalog.limit_text import USD
from torana.chat import ChatRequest, Document, Image, Part, Text, Thought, ToolCall, ToolResult, Usage
from torana.counting import BYTES_PER_TOKEN, IMAGE_TOKENS, count_bytes, estimate_body, estimate_tokens
from torana.limits.spent import Spent
from torana.usage.prices import Price, UnknownPrice, cost_usd
from torana.usage.told import MAX_TOKENS

DEFAULT_OUTPUT_TOKENS = 4_096
"""Where neither the request nor the model's record says how long an answer may be."""


def estimate(chat: ChatRequest, prices: Price | None, output_limit: int = 0) -> Spent:
    """Tokens and money that `chat` may come to."""
    if chat.source is not None and not chat.source.is_read:
        return estimate_relay("", estimate_body(chat.source.body), chat.source.allowed_tokens, prices, is_free=False)
    allowed = output_limit or DEFAULT_OUTPUT_TOKENS if chat.max_tokens is None else chat.max_tokens
    return _expect(input_tokens(chat), allowed * max(1, chat.choices), prices)


def estimate_relay(path: str, asked: int, allowed: int, prices: Price | None, *, is_free: bool) -> Spent:
    """As `estimate`, for a body that is passed on unread.

    asked    tokens of it, as we count them
    allowed  as `allowed_tokens` has it
    """
    if is_free:
        return Spent(0, 0, 0)
    # By path, or by the model's name in it.
    if "embedding" in path.partition("?")[0].rpartition("/")[2]:
        return _expect(asked, 0, prices)
    return _expect(asked, allowed or DEFAULT_OUTPUT_TOKENS, prices)


def allowed_tokens(members: Mapping[str, Any]) -> int:
    """How long a relayed answer may be, all its choices together, by whichever names its dialect has for that; 0: the
    request does not say."""
    allowed, choices = 0, 1
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        if name in members and (allowed := _tokens(members[name])):
            break
    if "n" in members:
        choices = _tokens(members["n"])
    config = members.get("generationConfig")
    if isinstance(config, dict):
        allowed, choices = allowed or _tokens(config.get("maxOutputTokens")), _tokens(config.get("candidateCount"))
    return allowed if choices < 2 else (allowed or DEFAULT_OUTPUT_TOKENS) * choices


def _tokens(value: object) -> int:
    """A client's number; what is none, the provider will say so."""
    return min(value, MAX_TOKENS) if type(value) is int and value > 0 else 0


def _expect(asked: int, allowed: int, prices: Price | None) -> Spent:
    allowed = min(max(0, allowed), MAX_TOKENS)
    if prices is None:
        return Spent(asked, allowed)
    return price(Usage(input_tokens=asked, output_tokens=allowed), prices)


def estimate_inputs(inputs: Sequence[str | tuple[int, ...]], prices: Price | None) -> Spent:
    """As `estimate`, for texts, or tokens, that vectors are asked for."""
    tokens = sum(estimate_tokens(each) if isinstance(each, str) else len(each) for each in inputs)
    return _expect(tokens, 0, prices)


def price(usage: Usage | None, prices: Price | None) -> Spent:
    """What was used, as limits count it; nothing where the call never came to be."""
    if usage is None:
        return Spent(0, 0, 0)
    return Spent(usage.input_tokens, usage.output_tokens, _cost(usage, prices))


def input_tokens(chat: ChatRequest) -> int:
    """Roughly what the provider will count for the prompt, tools and pictures included."""
    if chat.fill_in is not None and chat.fill_in.marked_prompt:
        return estimate_tokens(chat.fill_in.marked_prompt)
    size = pictures = 0
    for message in chat.messages:
        bytes_, images = _weigh(message.parts)
        size, pictures = size + bytes_, pictures + images
    for tool in chat.tools:
        size += len(tool.name) + len(tool.description) + len(msgspec.json.encode(tool.parameters))
    return -int(-size // BYTES_PER_TOKEN) + pictures * IMAGE_TOKENS


def _weigh(parts: Sequence[Part]) -> tuple[int, int]:
    """Bytes, and how many pictures. Without `match`, which is slower: agents send hundreds of parts with each call."""
    size = pictures = 0
    for part in parts:
        if isinstance(part, Text):
            size += count_bytes(part.text)
        elif isinstance(part, ToolResult):
            bytes_, images = _weigh(part.parts)
            size, pictures = size + bytes_, pictures + images
        elif isinstance(part, ToolCall):
            size += count_bytes(part.arguments)
        elif isinstance(part, Thought):
            size += count_bytes(part.text)
        elif isinstance(part, Image):
            pictures += 1
        elif isinstance(part, Document):
            size += count_bytes(part.text) if part.text else len(part.data) * 3 // 4
    return size, pictures


def _cost(usage: Usage, prices: Price | None) -> int | None:
    if prices is None:
        return None
    try:
        cost = cost_usd(usage, prices)
    except (UnknownPrice, ValueError):
        return None
    return int((cost * USD).to_integral_value(ROUND_CEILING))
