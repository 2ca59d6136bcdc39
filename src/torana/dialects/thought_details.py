"""`reasoning_details` of chat completions: thoughts with their vendor's proofs, which go back as they came.

Source: OpenRouter docs, "Reasoning Tokens", preserving reasoning blocks: the sequence of blocks may not be changed.
"""

from typing import Any

import msgspec

from torana.dialects.members import Members, finite

_PIECES = ("text", "summary")
"""Members whose value comes in pieces, each under the block's own index."""

MAX_CHARS = 2_000_000
"""Of an answer's blocks; a model's longest output is a quarter of it. Of more none go back: a part proves nothing."""
BLOCK_CHARS = 100
"""What a block counts at least."""

_rows = msgspec.json.Decoder(list[dict[str, Any]], float_hook=finite)


class ThoughtDetails:
    """The blocks of one answer so far."""

    __slots__ = ("_chars", "_rows")

    def __init__(self) -> None:
        self._chars = 0
        self._rows: list[tuple[Members, dict[str, list[str]]]] = []
        """Each with the pieces of its texts."""

    def add(self, blocks: list[Any]) -> None:
        for block in blocks:
            if isinstance(block, dict):
                self._add(block)

    def _add(self, block: Members) -> None:
        self._chars += BLOCK_CHARS + sum(len(value) for value in block.values() if isinstance(value, str))
        if self._chars > MAX_CHARS:
            self._rows.clear()
            return
        pieces = {name: block[name] for name in _PIECES if isinstance(block.get(name), str)}
        rest = {name: value for name, value in block.items() if name not in pieces}
        if self._rows:
            # What comes last may be a proof alone.
            known, texts = self._rows[-1]
            if texts and (known.get("type"), known.get("index")) == (block.get("type"), block.get("index")):
                known.update({name: value for name, value in rest.items() if value is not None})
                for name, piece in pieces.items():
                    texts.setdefault(name, []).append(piece)
                return
        self._rows.append((rest, {name: [piece] for name, piece in pieces.items()}))

    def proof(self) -> str:
        """All of them as one text, for `read_details`; empty where there are none."""
        if not self._rows:
            return ""
        rows = [{**rest, **{name: "".join(said) for name, said in texts.items()}} for rest, texts in self._rows]
        return msgspec.json.encode(rows).decode()


def read_details(proof: str) -> list[Members]:
    """The blocks again; none for a proof that is no such text."""
    try:
        return _rows.decode(proof) if proof else []
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
