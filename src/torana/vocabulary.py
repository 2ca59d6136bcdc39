"""Exact token counts, with a model's own tokenizer: only where an operator supplied its file, and off the event loop.

The library is the extra [tokenizers]; it lets go of the interpreter while it works, so that a thread helps.
"""

import asyncio
import importlib
import importlib.util
import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

logger = logging.getLogger("torana.counting")

P = ParamSpec("P")
T = TypeVar("T")

LIBRARY = "tokenizers"
MOST_WAITING = 32
"""Calls that may stand before the counting thread, a second's work at most with small windows; further ones do with
the estimate, which costs nothing."""
_KEPT = 8
"""Vocabularies in memory, so that a reload need not read them anew. One is 10 to 100 MB."""


class BadVocabulary(Exception):
    """`wrong` and `expected` say about the file what `torana check` prints."""

    def __init__(self, wrong: str, expected: str) -> None:
        super().__init__(f"{wrong}, {expected}")
        self.wrong = wrong
        self.expected = expected


class Vocabulary:
    """Counts text as the model's own server does. Its calls take about a millisecond for each 2 KB of text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        """Tokens of a whole prompt, with those that the tokenizer puts around it."""
        # Only the batch calls let go of the interpreter.
        return len(self._tokenizer.encode_batch_fast([text])[0])

    def starts(self, text: str) -> Sequence[int]:
        """Where each token of a piece of text begins, in letters; never decreasing."""
        (encoded,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        return [start for start, _ in encoded.offsets]


class TokenRuler:
    """Measures texts in a vocabulary's tokens, for `code.window.fit`. Remembers what it counted; for one call."""

    USUAL_CHARS, WIDEST_CHARS = 4, 8
    """Letters per token. Where the usual does not do, the widest does: no model gets more out of any text on average,
    so that longer ones are cut without being counted."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._starts: dict[str, Sequence[int]] = {}

    def amount(self, tokens: int) -> int:
        return tokens

    def size(self, text: str) -> int:
        return len(self._starts_of(text))

    def holds(self, text: str, limit: int) -> bool:
        """True where `text` is no longer than `limit`."""
        return len(text) <= max(0, limit) * self.WIDEST_CHARS and self.size(text) <= limit

    def end_of(self, text: str, limit: int) -> str:
        """The last tokens of `text`, whole letters."""
        if limit <= 0:
            return ""
        near = text[-limit * self.USUAL_CHARS :]
        if len(starts := self._starts_of(near)) < limit and len(near) < len(text):
            near = text[-limit * self.WIDEST_CHARS :]
            starts = self._starts_of(near)
        first = len(starts) - limit
        if first <= 0:
            return near
        if starts[first] == starts[first - 1]:
            # In the middle of a letter that is several tokens.
            first = bisect_right(starts, starts[first])
        return near[starts[first] :] if first < len(starts) else ""

    def start_of(self, text: str, limit: int) -> str:
        """The first tokens of `text`, whole letters."""
        if limit <= 0:
            return ""
        near = text[: limit * self.USUAL_CHARS]
        if len(starts := self._starts_of(near)) <= limit and len(near) < len(text):
            near = text[: limit * self.WIDEST_CHARS]
            starts = self._starts_of(near)
        return near if len(starts) <= limit else near[: starts[limit]]

    def _starts_of(self, text: str) -> Sequence[int]:
        found = self._starts.get(text)
        if found is None:
            found = self._starts[text] = self._vocabulary.starts(text)
        return found


class CountingThread:
    """One thread beside the event loop for all exact counts, and a bound on who waits for it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="counting")
        self._waiting = 0

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises NotCounted where too many wait already, and where the work fails."""
        if self._waiting >= MOST_WAITING:
            raise NotCounted
        self._waiting += 1
        try:
            return await asyncio.wrap_future(self._pool.submit(_try, partial(work, *args, **kwargs)))
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """What has not begun is given up."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class NotCounted(Exception):
    """Nobody counts now; the estimate decides."""


def _try(work: Callable[[], T]) -> T:
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 the library panics with more than an Exception: the worker would end
        # Its name alone: a panic's text may quote what was counted.
        logger.warning("counting failed, tokens are estimated", extra={"exception_class": type(error).__name__})
        raise NotCounted from None


def read_vocabulary(path: Path) -> Vocabulary:
    """From a `tokenizer.json`; up to a second for the largest. Raises BadVocabulary."""
    if importlib.util.find_spec(LIBRARY) is None:
        raise BadVocabulary("a tokenizer needs the extra [tokenizers]", "expected it installed: `make extras`")
    try:
        stat = path.stat()
        return _read(str(path), stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise BadVocabulary(
            f"tokenizer `{path}` cannot be read ({type(error).__name__})", "expected a readable file"
        ) from None


@lru_cache(maxsize=_KEPT)
def _read(path: str, _mtime_ns: int, _size: int) -> Vocabulary:
    with open(path, "rb") as file:
        content = file.read()
    library: Any = importlib.import_module(LIBRARY)
    try:
        tokenizer = library.Tokenizer.from_buffer(content)
    except Exception as error:  # noqa: BLE001 the library raises nothing more exact
        raise BadVocabulary(f"tokenizer `{path}` is none ({error})", "expected a `tokenizer.json`") from None
    # Files for training say where to cut; here everything counts.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Vocabulary(tokenizer)
