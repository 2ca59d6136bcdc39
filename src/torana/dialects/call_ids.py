"""Ids for tool calls that a provider gave none: clients name the call in its result."""

import hashlib


def make_call_id(answer_id: str, choice: int, position: int, name: str, arguments: str) -> str:
    """The same bytes give the same one, different answers different ones."""
    seed = f"{answer_id}/{choice}/{position}/{name}/{'' if answer_id else arguments}"
    return f"call_{hashlib.blake2s(seed.encode('utf-8', 'replace'), digest_size=12).hexdigest()}"
