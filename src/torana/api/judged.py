"""What the gate looks at in a body that goes on as it came; each such member may stand there only once.

Parsers disagree which of two members with one name counts, and some take `Model` for `model`. Whatever ours
judged, a vendor's could act upon the other one.
"""

from itertools import product
from typing import Any

import msgspec

from torana.dialects.bodies import mend_half_letters
from torana.dialects.members import finite

_COUNTED = ("model", "stream", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "generationConfig")
"""The allow-list of models, the way back, and how limits estimate the answer."""
_any_json = msgspec.json.Decoder(msgspec.Raw)
_MODEL_IN_ANY_CASE = ["".join(letters) for letters in product(*((low, low.upper()) for low in "model"))]


class Repeated(Exception):
    """A judged member stands twice; `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class JudgedReader:
    """Reads the judged members and skips the rest, in one pass. Not for use by several threads."""

    def __init__(self) -> None:
        # A type of its own for each name: msgspec calls the hook for each occurrence, however the name is escaped.
        kinds = {name: type(name, (), {}) for name in _COUNTED}
        self._marks: dict[type, Any] = {kind: kind() for kind in kinds.values()}
        fields = [(name, kind, None) for name, kind in kinds.items()]
        fields += [(name, kinds["model"], None) for name in _MODEL_IN_ANY_CASE if name != "model"]
        judged = msgspec.defstruct("Judged", fields)
        self._decoder = msgspec.json.Decoder(judged, dec_hook=self._note, float_hook=finite)
        self._found: dict[str, Any] = {}

    def read(self, body: bytes) -> dict[str, Any]:
        """Name → value of the judged members that are there.

        Raises Repeated; msgspec.ValidationError for JSON that is no object; msgspec.DecodeError, ValueError or
        RecursionError for what is no JSON. Half a letter in an escape is JSON: what becomes of it others decide.
        """
        try:
            return self._read(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            if rb"\u" not in body:
                raise
            return self._read(mend_half_letters(body))

    def _read(self, body: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._found = found
        try:
            self._decoder.decode(body)
        except msgspec.ValidationError:
            # Told at its first byte: what follows may be anything.
            _any_json.decode(body)
            raise
        return found

    def _note(self, kind: type, value: Any) -> Any:
        name = kind.__name__
        if name in self._found:
            raise Repeated(name)
        self._found[name] = value
        return self._marks[kind]
