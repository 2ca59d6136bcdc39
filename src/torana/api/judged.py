"""What the gate looks at in a body that goes on as it came; each such member may stand there only once.

Parsers disagree which of two members with one name counts, and some take `Model` for `model`. Whatever ours
judged, a vendor's could act upon the other one.
"""

from contextlib import suppress
from typing import Any

import msgspec

from torana.dialects.bodies import is_crowded, mend_half_letters
from torana.dialects.members import finite

MAX_MEMBERS = 10_000
"""Of a body, those inside of others not counted; vendors have some dozens."""

_COUNTED = frozenset(
    ("model", "stream", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "generationConfig")
)
"""The allow-list of models, the way back, and how limits estimate the answer."""
_any_json = msgspec.json.Decoder(msgspec.Raw)
_values: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=finite)


class Repeated(Exception):
    """A judged member stands twice; `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _TooMany(Exception):
    """Members; no ValueError, which msgspec would take for a fault of theirs."""


class _Name:
    """Of one occurrence: two that say the same are two keys."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class JudgedReader:
    """Finds the judged members, skips the rest and reads no more values than other bodies may have.

    Not for use by several threads.
    """

    def __init__(self) -> None:
        # A key of its own for each occurrence, however the name is escaped; values are cut out unread.
        self._decoder = msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=self._note)
        self._members = 0

    def read(self, body: bytes) -> dict[str, Any]:
        """Name → value of the judged members that are there.

        Raises Repeated; msgspec.ValidationError for JSON that is no object; msgspec.DecodeError, ValueError or
        RecursionError for what is no JSON, or has more members or values than anybody needs. Half a letter in an
        escape is JSON: what becomes of it others decide.
        """
        try:
            return self._read(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            if rb"\u" not in body:
                raise
            return self._read(mend_half_letters(body))

    def _read(self, body: bytes) -> dict[str, Any]:
        self._members = 0
        try:
            members = self._decoder.decode(body)
        except msgspec.ValidationError:
            # Told at its first byte: what follows may be anything.
            _any_json.decode(body)
            raise
        except _TooMany:
            raise ValueError("more members than anybody needs") from None
        found: dict[str, bytes] = {}
        for key, value in members.items():
            name = "model" if key.text.lower() == "model" else key.text
            if name in found:
                raise Repeated(name)
            if name in _COUNTED:
                found[name] = bytes(value)
        if is_crowded(b",".join(found.values())):
            raise ValueError("more values than anybody needs")
        judged: dict[str, Any] = {}
        for name, said in found.items():
            # A number that no machine holds is none for us; what its vendor makes of it, the vendor will say.
            with suppress(msgspec.ValidationError):
                judged[name] = _values.decode(said)
        return judged

    def _note(self, kind: type[_Name], text: str) -> _Name:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise _TooMany
        return kind(text)
