"""Which of several equal deployments a prompt belongs to, so that its prompt cache is warm; and who is in a percentage.

Rendezvous hashing: every deployment draws a number for the key, the best one has it. Nothing is remembered, every
worker and replica agrees, and a deployment that goes takes only its own keys with it.
Source: Thaler and Ravishankar, "A name-based mapping scheme for rendezvous"; bounded loads after Mirrokni, Thorup and
Zadimoghaddam, "Consistent hashing with bounded loads".
"""

import math
from collections.abc import Sequence
from hashlib import blake2b

from torana.chat import ChatRequest

SPILL = 1.25
"""A deployment may have this many times its share of the calls under way before a key's next choice takes over."""

MIN_CACHED_CHARS = 4_000
"""Shorter prompts are kept by no provider's cache (about 1,024 tokens), so they may go anywhere."""


def affinity_key(party: str, chat: ChatRequest) -> bytes:
    """What calls that share a cached beginning have in common; empty where there is none worth keeping warm.

    That is the beginning of a conversation, or of a long text. System text alone is shared by so many calls that it is
    warm everywhere. Nobody shares a cache across parties, so the party is part of it.
    """
    if chat.fill_in is not None and chat.fill_in.marked_prompt:
        system, told = "", chat.fill_in.marked_prompt
        is_worth_it = len(told) >= MIN_CACHED_CHARS
    else:
        turns = [message for message in chat.messages if message.role != "system"]
        system = "".join([message.text for message in chat.messages if message.role == "system"])
        told = turns[0].text if turns else ""
        is_conversation = len(turns) > 1 and len(system) + sum(len(turn.text) for turn in turns) >= MIN_CACHED_CHARS
        is_marked = any(getattr(part, "cached", False) for turn in turns for part in turn.parts)
        is_worth_it = is_conversation or is_marked or len(told) >= MIN_CACHED_CHARS
    if not is_worth_it:
        return b""
    digest = blake2b(party.encode("utf-8", "surrogatepass"), digest_size=16)
    for text in (system, told):
        digest.update(text[:MIN_CACHED_CHARS].encode("utf-8", "surrogatepass") + b"\0")
    return digest.digest()


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
