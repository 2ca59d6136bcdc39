"""The demo as a provider: a chat request in, chunks out, like any model but without one.

Deterministic: the same request gives the same bytes. Answers to people say that they are a demo's;
code and JSON carry no such text, for they are used as they come.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from torana.chat import ChatRequest, Chunk, FinishReason, Tool, ToolCall, ToolCallPiece, Usage
from torana.counting import bytes_of, estimate_tokens
from torana.errors import BadSetting
from torana.providers.demo.generate import generate
from torana.providers.demo.local import LocalModel, open_local_model
from torana.providers.demo.ngram import complete
from torana.providers.demo.objects import answer_object
from torana.providers.demo.prose import answer_react, answer_text
from torana.providers.demo.tool_call import make_value

MODEL_NAME = "torana-demo"
PIECES_PER_BATCH = 8
PIECES_PER_TURN = 128
"""Yielded before others have their turn: about a millisecond's work for whoever takes them."""
SMALL_CHARS = 4_000
"""Requests up to here are answered on the event loop, in a few milliseconds; others in a thread."""

GENERATION_STOP = "</new_code>"
"""The stop text of generations (contract 6.2): with it, a cursor is only the place for new code."""

_PIECE = re.compile(r"\s*\S{1,12}|\s+\Z")


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str = ""
    finish: FinishReason = "stop"
    call: ToolCall | None = None


class DemoProvider:
    """Answers every request itself.

    engine   `ngram`, or `local` for the small model of the extra [demo-model]

    Raises BadSetting when the engine is not there.
    """

    name = "demo"

    def __init__(self, engine: str = "ngram") -> None:
        if engine not in ("ngram", "local"):
            raise BadSetting("AIGW_DEMO__ENGINE", f"{engine!r} is no engine", "expected ngram or local")
        self.local: LocalModel | None = open_local_model() if engine == "local" else None

    async def answer(self, chat: ChatRequest) -> AsyncGenerator[list[Chunk], None]:
        """Small batches of chunks; the last chunk of the last batch has `is_last`."""
        input_tokens = _count_input(chat)
        if self.local is not None and self.local.suits(chat):
            async with aclosing(self.local.answer(chat, input_tokens)) as batches:
                async for batch in batches:
                    yield batch
            return
        is_small = _looked_at_chars(chat) <= SMALL_CHARS
        answers = _compose(chat) if is_small else await asyncio.to_thread(_compose, chat)
        output_tokens = 0
        for choice, answer in enumerate(answers):
            pieces = _split(answer, choice)
            for start in range(0, len(pieces), PIECES_PER_BATCH):
                yield pieces[start : start + PIECES_PER_BATCH]
                if (start + PIECES_PER_BATCH) % PIECES_PER_TURN == 0:
                    await asyncio.sleep(0)
            output_tokens += estimate_tokens(answer.text or (answer.call.arguments if answer.call else ""))
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, is_counted=True)
        ends = [Chunk(choice=choice, finish=answer.finish) for choice, answer in enumerate(answers[:-1])]
        last = Chunk(choice=len(answers) - 1, finish=answers[-1].finish, usage=usage, is_last=True)
        yield [*ends, last]


def _compose(chat: ChatRequest) -> list[_Answer]:
    """The whole answers, one per choice; at least one, maybe empty."""
    tool = _tool_to_call(chat)
    if tool is not None:
        arguments = json.dumps(make_value(tool.parameters), ensure_ascii=False)
        return [_Answer(finish="tool_calls", call=ToolCall(id="call_demo_0", name=tool.name, arguments=arguments))]
    if chat.answer == "code":
        if chat.fill_in is not None and GENERATION_STOP not in chat.stop:
            texts = complete(chat.fill_in, max(1, min(chat.choices, 8)))
        else:
            texts = [generate(chat)]
    elif chat.answer == "json" or chat.wants_json or chat.answer_schema is not None:
        texts = [answer_object(chat.messages, chat.answer_schema.schema if chat.answer_schema is not None else None)]
    else:
        texts = [answer_react(chat) if chat.answer == "react" else answer_text(chat)]
    return [_cut(text, chat) for text in texts or [""]]


def _tool_to_call(chat: ChatRequest) -> Tool | None:
    """The tool that the request demands; where it may choose, the demo calls none."""
    if not chat.tools or chat.tool_choice in ("auto", "none"):
        return None
    named = [tool for tool in chat.tools if tool.name == chat.tool_choice]
    if named:
        return named[0]
    return chat.tools[0] if chat.tool_choice == "any" else None


def _cut(text: str, chat: ChatRequest) -> _Answer:
    """Keep what comes before the first stop text and what `max_tokens` allow."""
    finish: FinishReason = "stop"
    places = [place for stop in chat.stop if stop and (place := text.find(stop)) >= 0]
    if places:
        text, finish = text[: min(places)], "stop_sequence"
    if chat.max_tokens is not None and estimate_tokens(text) > chat.max_tokens:
        # Cutting bytes may split the last letter; what is left of it is dropped.
        kept = text.encode("utf-8", "replace")[: bytes_of(max(0, chat.max_tokens))]
        text, finish = kept.decode("utf-8", "ignore"), "length"
    return _Answer(text, finish)


def _split(answer: _Answer, choice: int) -> list[Chunk]:
    """Pieces about as long as a model's."""
    if answer.call is not None:
        call = answer.call
        head = ToolCallPiece(position=0, id=call.id, name=call.name)
        return [
            Chunk(choice=choice, model=MODEL_NAME, tool_call=head),
            Chunk(choice=choice, tool_call=ToolCallPiece(position=0, arguments=call.arguments)),
        ]
    return [Chunk(text=piece, choice=choice, model=MODEL_NAME) for piece in _PIECE.findall(answer.text)]


def _looked_at_chars(chat: ChatRequest) -> int:
    fill_in = chat.fill_in
    around = len(fill_in.prefix) + len(fill_in.suffix) + len(fill_in.context) if fill_in else 0
    return around + sum(len(part.text) for message in chat.messages for part in message.parts if hasattr(part, "text"))


def _count_input(chat: ChatRequest) -> int:
    count = sum(estimate_tokens(message.text) for message in chat.messages)
    if not chat.messages and chat.fill_in is not None:
        count = estimate_tokens(chat.fill_in.prefix) + estimate_tokens(chat.fill_in.suffix)
    return count
