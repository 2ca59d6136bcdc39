"""What usually follows: n-grams of code, longest match first, then by the shape of the line.

Nothing is counted ahead. A token's places are indexed, and each question compares what stands
before them; so a file of 20,000 characters costs milliseconds and the order needs no limit.
"""

import re
from collections import defaultdict
from typing import NamedTuple

SAME, DEEPER, SHALLOWER, PARAGRAPH = "\n", "\n>", "\n<", "\n\n"
"""Line breaks as tokens: the next line's indentation compared with this one's; PARAGRAPH: after a blank line."""

_SEAM = "\0\0"
"""No token: signs that belong to no word come one by one."""
LONGEST_MATCH = 12
PLACES = 200
"""The nearest places of a token that are compared; more would not change the winner."""

_TOKEN = re.compile(
    r"(?P<space>[^\S\n]*)(?P<word>[$@]{0,2}\w+|==+|!==?|[<>+\-*/|&:.=]=|=>|->|::|&&|\|\||\+\+|--|//|\.\.\.|<<|>>|\S)"
)


class Guess(NamedTuple):
    """A token that followed elsewhere."""

    word: str
    is_spaced: bool
    """White space stood before it."""
    matched: int
    """How many tokens before it are as here; 0 where only the shape is."""


class Grams:
    """The tokens of several pieces of code, least important first."""

    def __init__(self, sources: list[str], keywords: frozenset[str]) -> None:
        self.keywords = keywords
        self.words: list[str] = []
        self.spaced: list[bool] = []
        for source in sources:
            self._add(source)
        self.places = _index(self.words)
        self._shapes: list[str] | None = None
        self._shape_places: dict[str, list[int]] = {}

    def _add(self, source: str) -> None:
        for word, is_spaced in read_tokens(source):
            self.words.append(word)
            self.spaced.append(is_spaced)
        # Nothing is learned across the seam of two sources.
        self.words.append(_SEAM)
        self.spaced.append(False)

    def follow(self, history: list[str], begins: str = "") -> list[Guess]:
        """What may come after `history`, best first; with `begins` only longer words that begin so."""
        exact = self._ask(self.words, self.places, history, begins)
        if exact and exact[0].matched > 1:
            return exact
        if self._shapes is None:
            self._shapes = [self.shape(word) for word in self.words]
            self._shape_places = _index(self._shapes)
        shapes = [self.shape(word) for word in history[-LONGEST_MATCH:]]
        similar = self._ask(self._shapes, self._shape_places, shapes, begins)
        return exact + [guess._replace(matched=0) for guess in similar]

    def shape(self, word: str) -> str:
        """Keywords and signs are themselves; names are alike, and so are numbers."""
        if word in self.keywords or not (word[-1].isalnum() or word[-1] == "_"):
            return word
        return "0" if word[0].isdigit() else "a"

    def _ask(self, keys: list[str], places: dict[str, list[int]], history: list[str], begins: str) -> list[Guess]:
        if not history:
            return []
        best: dict[str, tuple[int, int, int]] = {}
        for place in places.get(history[-1], ())[-PLACES:]:
            word = self.words[place + 1]
            if word == _SEAM:
                continue
            if begins and not (word.startswith(begins) and len(word) > len(begins)):
                continue
            matched = _count_matches(keys, place, history)
            before = best.get(word, (0, 0, 0))
            if matched > before[0]:
                best[word] = (matched, 1, place)
            elif matched == before[0]:
                best[word] = (matched, before[1] + 1, place)
        ranked = sorted(best.items(), key=lambda item: item[1], reverse=True)
        return [Guess(word, self.spaced[place + 1], matched) for word, (matched, _, place) in ranked]

    def name_beginning_with(self, begins: str) -> str:
        """The most frequent, then nearest, longer word with this beginning; empty if there is none."""
        found = [word for word in self.places if word.startswith(begins) and len(word) > len(begins)]
        return max(found, key=lambda word: (len(self.places[word]), self.places[word][-1]), default="")


def read_tokens(code: str) -> list[tuple[str, bool]]:
    """(token, is white space before it), line breaks included; a trailing break is one as well."""
    tokens: list[tuple[str, bool]] = []
    depths = [0]
    is_blank_before = True
    for line in code.split("\n"):
        # Blanks without a token behind them would be looked through again from each of them.
        found = _TOKEN.findall(line.rstrip())
        if not found:
            is_blank_before = True
            continue
        depth = len(line) - len(line.lstrip(" \t"))
        levels = 0
        while depth < depths[-1]:
            depths.pop()
            levels += 1
        if depth > depths[-1]:
            depths.append(depth)
            step = DEEPER
        else:
            step = SAME + "<" * levels
        tokens.append((PARAGRAPH if is_blank_before and not levels and step == SAME else step, False))
        is_blank_before = False
        tokens.append((found[0][1], False))
        tokens.extend((word, bool(space)) for space, word in found[1:])
    return tokens


def _index(keys: list[str]) -> dict[str, list[int]]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    return places


def _count_matches(keys: list[str], place: int, history: list[str]) -> int:
    limit = min(LONGEST_MATCH, len(history), place + 1)
    matched = 1
    while matched < limit and keys[place - matched] == history[-1 - matched]:
        matched += 1
    return matched
