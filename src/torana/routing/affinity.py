"""Which of several equal deployments a prompt belongs to, so that its prompt cache is warm; and who is in a percentage.

Rendezvous hashing: every deployment draws a number for the key, the best one has it. Nothing is remembered, every
worker and replica agrees, and a deployment that goes takes only its own keys with it.
Source: Thaler and Ravishankar, "A name-based mapping scheme for rendezvous"; bounded loads after Mirrokni, Thorup and
Zadimoghaddam, "Consistent hashing with bounded loads".
"""

import math
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from torana.chat import ChatRequest

SPILL = 1.25
"""A deployment may have this many times its share of the calls under way before a key's next choice takes over."""

MIN_CACHED_CHARS = 4_000
"""Shorter prompts are kept by no provider's cache (about 1,024 tokens), so they may go anywhere."""


def affinity_key(tenant: str, chat: ChatRequest) -> bytes:
    """What calls that share a cached prefix have in common; empty where there is nothing to keep warm.

    Nobody shares a cache across tenants, so the tenant is part of it.
    """
    digest = blake2b(tenant.encode(), digest_size=16)
    room = MIN_CACHED_CHARS
    for text in _beginning(chat):
        digest.update(text[:room].encode("utf-8", "surrogatepass"))
        room -= len(text)
        if room <= 0:
            return digest.digest()
    is_marked = any(getattr(part, "cached", False) for message in chat.messages for part in message.parts)
    return digest.digest() if is_marked else b""


def _beginning(chat: ChatRequest) -> Iterable[str]:
    """The texts in the order in which providers see them."""
    if chat.fill_in is not None and chat.fill_in.marked_prompt:
        yield chat.fill_in.marked_prompt
        return
    for message in chat.messages:
        if message.role == "system":
            yield message.text
    for message in chat.messages:
        if message.role != "system":
            yield message.text


def rank(key: bytes, names: Sequence[str], weights: Sequence[float]) -> list[int]:
    """Places of `names`, the key's own choice first; over many keys each is first as often as its weight says."""
    drawn = [-weight / math.log(_draw(key, name)) for name, weight in zip(names, weights, strict=True)]
    return sorted(range(len(names)), key=drawn.__getitem__, reverse=True)


def spill(ranked: Sequence[int], in_flight: Sequence[int], weights: Sequence[float]) -> list[int]:
    """`ranked` with those that already have too much to do moved behind the others."""
    share = SPILL * (sum(in_flight) + 1) / sum(weights)
    return sorted(ranked, key=lambda place: in_flight[place] + 1 > math.ceil(share * weights[place]))


def is_within(percent: float, name: str, unit: str) -> bool:
    """Whether `unit` is in the `percent` of those that `name` takes: always the same ones, and with more more."""
    return percent > 0 and 100.0 * _draw(unit.encode("utf-8", "surrogatepass"), name) < percent


def _draw(key: bytes, name: str) -> float:
    """A number in (0, 1) that key and name alone decide."""
    drawn = int.from_bytes(blake2b(name.encode(), digest_size=8, key=blake2b(key, digest_size=32).digest()).digest())
    return (drawn + 0.5) / 2**64
