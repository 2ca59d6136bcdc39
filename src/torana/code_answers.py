"""Answers in code under way, cleaned: each stands around one of `answers.py`, and is read and closed as that is."""

import time

import msgspec
from msgspec.structs import replace as replace_fields

from torana.answers import Answer, Collected
from torana.code.cleaning import Cleaner
from torana.code.orders import GENERATIONS, Cleaning, Cursor
from torana.code.stops import cut_at_start, cut_at_stop
from torana.code.streamed import StreamedGeneration
from torana.code.window import Window
from torana.providers.batches import Batch


class CodeAnswer(msgspec.Struct):
    """An answer in code, cleaned as the order says (contract 6.7)."""

    answer: Answer
    cursor: Cursor
    cleaning: Cleaning
    window: Window
    cleaner: Cleaner
    excluded: frozenset[str]
    least_score: float | None = None
    """An answer with a lower one is none."""
    _streamed: StreamedGeneration | None = None

    @property
    def engine(self) -> str:
        return self.answer.engine

    @property
    def model(self) -> str:
        return self.answer.model

    @property
    def region(self) -> str:
        return self.answer.region

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return self.answer.headers

    @property
    def context_tokens_sent(self) -> int:
        return self.window.context_tokens_sent

    @property
    def context_tokens_used(self) -> int:
        return self.window.context_tokens_used

    async def collect(self) -> Collected:
        found = await self.answer.collect()
        if self.cleaning == "none":
            return found
        started = time.perf_counter()
        is_cut = found.finish == "length"
        texts = [
            await self.cleaner.clean(self._cut(text), self.cursor, self.cleaning, excluded=self.excluded, is_cut=is_cut)
            if self.least_score is None or found.scores.get(number, 0.0) >= self.least_score
            else ""
            for number, text in enumerate(found.texts)
        ]
        self.answer.call.metrics.suggestion_cleaned(time.perf_counter() - started)
        return Collected(tuple(texts), found.usage, found.finish)

    def __aiter__(self) -> "CodeAnswer":
        return self

    async def __anext__(self) -> Batch:
        """The chunks as they come; generations end at their stop text, and lose their fence lines on the way."""
        batch = await self.answer.__anext__()
        if self.cleaning not in GENERATIONS:
            return batch
        if self._streamed is None:
            is_as_given = self.cleaning != "generation"
            self._streamed = StreamedGeneration(self._stops, self.cursor.language, is_as_given=is_as_given)
        text = self._streamed.feed("".join([chunk.text for chunk in batch]), is_last=batch[-1].is_last)
        return [replace_fields(batch[-1], text=text)]

    def _cut(self, text: str) -> str:
        text = cut_at_stop(text, self._stops)
        return cut_at_start(text, self._stops) if self.cleaning == "generation" else text

    @property
    def _stops(self) -> tuple[str, ...]:
        """Of generations; a completion comes as its model ended it."""
        return self.answer.chat.stop if self.cleaning in GENERATIONS else ()

    async def aclose(self) -> None:
        await self.answer.aclose()
