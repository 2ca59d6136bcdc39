"""Thoughts that a server leaves in the text, between `<think>` and `</think>` at its beginning.

Servers with a parser for their model's thoughts tell them apart; those without write what the model
wrote. The block becomes what it is, a thought; whoever wants the text alone gets the text alone.

Bedrock's way to gpt-oss calls it `<reasoning>`. Chat templates of DeepSeek R1, QwQ and Qwen's Thinking models open the
block themselves, and the answer has its end alone: of a stream that is looked for where the model's name says so.
"""

import re
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from torana.chat import Chunk

_BLOCKS = {"<think>": "</think>", "<reasoning>": "</reasoning>"}
_CLOSE = "</think>"
_opening = re.compile(r"thinking|qwq|deepseek-r1|\br1\b", re.IGNORECASE)

MAX_BLANK_CHARS = 1_000
"""White space before a block; behind more of it the answer has begun."""

MAX_THOUGHT_CHARS = 2_000_000
"""Of a thought that is held until its end; a model's longest output is a quarter of it."""


class Beginning(Protocol):
    """Takes from an answer's text, as it comes in pieces, what does not belong at its beginning."""

    def feed(self, text: str) -> tuple[str, str]:
        """(thought, said)"""

    def close(self) -> tuple[str, str]:
        """What was held back."""


class ThinkBlock:
    """One answer's text as it comes in pieces: what of it was thought, and what was said."""

    __slots__ = ("_close", "_held", "_state")

    def __init__(self) -> None:
        self._close = ""
        """What ends the block."""
        self._held = ""
        """What may become the opening tag; inside the block, the end that may become the closing one."""
        self._state = "before"
        """`before` the block, `inside` it, just `behind` it, or `over`."""

    def feed(self, text: str) -> tuple[str, str]:
        """(thought, said)"""
        if self._state == "over":
            return "", text
        if self._state == "before":
            # White space before the block means nothing, so what is held stays short.
            start = (self._held + text).lstrip()
            opened = next((mark for mark in _BLOCKS if start.startswith(mark)), "")
            if not opened:
                if any(mark.startswith(start) for mark in _BLOCKS) and len(self._held) < MAX_BLANK_CHARS:
                    self._held += text
                    return "", ""
                return self.close(text)
            self._state, self._close, self._held, text = "inside", _BLOCKS[opened], "", start[len(opened) :]
        if self._state == "behind":
            return "", self._begin(text)
        window = self._held + text
        thought, found, said = window.partition(self._close)
        if found:
            self._state, self._held = "behind", ""
            return thought, self._begin(said)
        kept = _overlap(window, self._close)
        self._held = window[len(window) - kept :]
        return window[: len(window) - kept], ""

    def close(self, text: str = "") -> tuple[str, str]:
        """What was held back; a block that never ended is all thought."""
        held, self._held = self._held, ""
        is_inside = self._state == "inside"
        self._state = "over"
        return (held + text, "") if is_inside else ("", held + text)

    def _begin(self, said: str) -> str:
        """Without the line ends that only set the answer off from the block."""
        said = said.lstrip("\r\n")
        if said:
            self._state = "over"
        return said


class OpenedThinkBlock:
    """The same of an answer whose block may lack its beginning: nothing is told before its end is there."""

    __slots__ = ("_block", "_chars", "_pieces", "_tail")

    def __init__(self) -> None:
        self._block: ThinkBlock | None = None
        """From the end of the block on."""
        self._pieces: list[str] = []
        self._chars = 0
        """In all of them."""
        self._tail = ""
        """What may begin the end."""

    def feed(self, text: str) -> tuple[str, str]:
        if self._block is not None:
            return self._block.feed(text)
        self._pieces.append(text)
        self._chars += len(text)
        window = self._tail + text
        self._tail = window[1 - len(_CLOSE) :]
        return self._begin() if _CLOSE in window or self._chars > MAX_THOUGHT_CHARS else ("", "")

    def close(self) -> tuple[str, str]:
        thought, said = ("", "") if self._block is not None else self._begin()
        last_thought, last_said = self._block.close() if self._block is not None else ("", "")
        return thought + last_thought, said + last_said

    def _begin(self) -> tuple[str, str]:
        text, self._pieces = "".join(self._pieces), []
        self._block = ThinkBlock()
        before, is_ended, _ = text.partition(_CLOSE)
        return self._block.feed(f"<think>{text}" if is_ended and "<think>" not in before else text)


def opens_blocks_itself(model: str) -> bool:
    """Whether the chat template of a model of this name begins the block, as far as is known."""
    return _opening.search(model) is not None


def _overlap(text: str, close: str) -> int:
    """How many letters at the end of `text` begin a closing tag."""
    return next((size for size in range(min(len(close) - 1, len(text)), 0, -1) if close.startswith(text[-size:])), 0)


class ThinkBlocks:
    """The blocks, or other beginnings, of an answer with one or several choices."""

    __slots__ = ("_blocks", "_make", "_parsed")

    def __init__(
        self, make: Callable[[], Beginning] = ThinkBlock, parsed: Callable[[], Beginning] | None = None
    ) -> None:
        """
        parsed  makes those of answers whose server tells thoughts apart; None: as all
        """
        self._make = make
        self._parsed = parsed
        self._blocks: dict[int, Beginning] = {}

    def take(self, chunks: list[Chunk]) -> list[Chunk]:
        """The same chunks with the thoughts apart; fewer where some is held back, never without the last one."""
        told: list[Chunk] = []
        for chunk in chunks:
            thought, said = "", chunk.text
            if chunk.reasoning and self._parsed is not None and chunk.choice not in self._blocks:
                self._blocks[chunk.choice] = self._parsed()
            if said:
                block = self._blocks.get(chunk.choice)
                if block is None:
                    block = self._blocks[chunk.choice] = self._make()
                thought, said = block.feed(said)
            if thought:
                told.append(Chunk(choice=chunk.choice, reasoning=thought))
            if chunk.finish is not None or chunk.is_last:
                # What was held back comes out before the end is told.
                told += _tell(chunk.choice, "", said)
                for number in tuple(self._blocks) if chunk.is_last else (chunk.choice,):
                    if ended := self._blocks.pop(number, None):
                        told += _tell(number, *ended.close())
                told.append(replace(chunk, text=""))
            elif said or not chunk.text:
                told.append(chunk if said == chunk.text else replace(chunk, text=said))
            elif (rest := replace(chunk, text="")) != Chunk(choice=chunk.choice):
                told.append(rest)
        return told


def _tell(choice: int, thought: str, said: str) -> list[Chunk]:
    return [Chunk(said, choice, thought)] if thought or said else []
