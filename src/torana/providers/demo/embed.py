"""Demo embeddings: texts that share words and letter groups get vectors that point the same way."""

import math
import re
import zlib

MAX_CHARS = 20_000
"""Of a text; what stands behind does not change its vector."""

WORD_WEIGHT = 1.0
LETTERS_WEIGHT = 0.4


def embed(text: str, dimensions: int) -> list[float]:
    """A unit vector, the same for the same text on every machine; `dimensions` is at least 1."""
    vector = [0.0] * max(1, dimensions)
    for word in re.findall(r"\w+", text[:MAX_CHARS].lower()):
        _add(vector, word, WORD_WEIGHT)
        marked = f"^{word[:40]}$"
        for start in range(len(marked) - 2):
            _add(vector, marked[start : start + 3], LETTERS_WEIGHT)
    length = math.sqrt(sum(value * value for value in vector))
    if length == 0:
        # No words, or ones that cancel out: still a unit vector.
        vector[0], length = 1.0, 1.0
    return [value / length for value in vector]


def _add(vector: list[float], feature: str, weight: float) -> None:
    # Python's own hash differs from process to process.
    number = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
    vector[(number >> 1) % len(vector)] += weight if number & 1 else -weight
