"""`prompt_components`, the envelope of feature endpoints: read leniently, written strictly (contract 1.4, 6.3).

A client of any version may send components that this gateway has never heard of. The first one that the
endpoint understands is the request; no other is looked at.
"""

from collections.abc import Collection
from typing import Any

import msgspec

from torana.api import reading
from torana.chat import Usage
from torana.errors import Invalid

MAX_COMPONENTS = 100


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """The component that is answered."""

    type: str
    payload: dict[str, Any]
    loc: reading.Loc
    """Of the payload, for errors about its members."""
    stream: bool = False


def read_envelope(body: dict[str, Any], understood: Collection[str]) -> Component:
    """The first component of a type that is understood; raises Invalid where there is none, or it is no good.

    `stream` is read from its payload, and where that has none from the body.
    """
    components = reading.items(body, "prompt_components", required=True, at_least=1, at_most=MAX_COMPONENTS)
    for number, value in enumerate(components):
        if not isinstance(value, dict) or value.get("type") not in tuple(understood):
            continue
        loc: reading.Loc = ("prompt_components", number)
        source = reading.mapping(value, "metadata", loc)
        for name in ("source", "version"):
            reading.text(source, name, (*loc, "metadata"), limit=255)
        payload = reading.mapping(value, "payload", loc, required=True)
        inner = (*loc, "payload")
        stream = reading.boolean(payload, "stream", inner, default=reading.boolean(body, "stream"))
        return Component(type=value["type"], payload=payload, loc=inner, stream=stream)
    wanted = ", ".join(f"'{name}'" for name in understood)
    raise Invalid(("prompt_components",), f"None of the components has a type of {wanted}", "literal_error")


def write_envelope(
    text: str,
    *,
    is_cut: bool,
    engine: str,
    model: str,
    timestamp: int,
    flags: Collection[str],
    usage: Usage | None,
) -> dict[str, Any]:
    """The answer as v3 has it (contract 6.3), and the tokens where the provider told them.

    An empty text is no choice, and no error either.
    """
    choice = {"text": text, "index": 0, "finish_reason": "length" if is_cut else "stop"}
    named = {"engine": engine, "name": model}
    metadata: dict[str, Any] = {"model": named, "timestamp": timestamp, "enabled_feature_flags": sorted(flags)}
    if usage is not None:
        metadata["usage"] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return {"choices": [choice] if text else [], "metadata": metadata, "model": named}
