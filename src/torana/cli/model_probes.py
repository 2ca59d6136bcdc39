"""Small real calls that show what a model can do: one for each ability, each judged by what came back.

What is asked is cheap and has one right kind of answer. `documents` and `prompt_cache` are not asked for.
"""

import base64
import json
import re
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec.structs import replace as replace_members

from torana.chat import AnswerSchema, ChatRequest, FillIn, Image, Message, Reasoning, Text, Tool, Usage
from torana.code.fill_in import FORMATS, mark_cursor
from torana.dialects.embedding_dialect import EmbeddingsRequest
from torana.errors import (
    Invalid,
    ProviderError,
    ProviderLimited,
    ProviderRefused,
    ProviderRefusedKey,
    ProviderTimedOut,
    ProviderUnreachable,
)
from torana.providers.provider import Deployment
from torana.providers.send import Sender
from torana.routing.concessions import MAX_CONCESSIONS, Concessions

ANSWER_TOKENS = 1024
"""Enough for models that think before they answer."""

WEATHER = Tool(
    "get_weather",
    "The weather of a city, now",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CITY = AnswerSchema(
    "city",
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "country": {"type": "string"}},
        "required": ["name", "country"],
        "additionalProperties": False,
    },
    strict=True,
)


class NotShown(Exception):
    """The call came through, and the answer does not show the ability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One ability, tried once."""

    ability: str
    works: bool
    detail: str
    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Said:
    """One answer, read whole."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    """Position → name and arguments of a tool call."""
    usage: Usage = field(default_factory=Usage)
    pieces: int = 0
    first_s: float = 0.0


@dataclass(slots=True)
class Bench:
    """One deployment under test."""

    sender: Sender
    deployment: Deployment
    fill_in: str = ""
    """Name of the family's fill-in-the-middle format, where it has one."""
    usage: Usage = field(default_factory=Usage)
    concessions: Concessions = field(default_factory=Concessions)

    @property
    def dialect(self) -> str:
        return self.sender.dialect_of(self.deployment)

    async def ask(self, text: str = "", *, deployment: Deployment | None = None, **members: Any) -> Said:
        """Without what the server turns out to refuse, as the gateway asks it; with thinking in every case."""
        deployment = deployment or self.deployment
        chat = ChatRequest(
            **{"messages": (Message("user", (Text(text),)),), "max_tokens": ANSWER_TOKENS, "stream": True, **members}
        )
        chat = replace_members(self.concessions.ask(deployment, chat), reasoning=chat.reasoning)
        for _ in range(MAX_CONCESSIONS):
            try:
                return await self._hear(deployment, chat)
            except ProviderRefused as refused:
                made = self.concessions.make(chat, refused)
                if made is None or made.name == "reasoning":
                    raise
                self.concessions.remember(deployment, made)
                chat = made.without(chat)
        return await self._hear(deployment, chat)

    async def _hear(self, deployment: Deployment, chat: ChatRequest) -> Said:
        said, started = Said(), time.monotonic()
        async with aclosing(self.sender.stream(deployment, chat)) as batches:
            async for batch in batches:
                for chunk in batch:
                    if chunk.text or chunk.reasoning or chunk.tool_call:
                        said.pieces += 1
                        said.first_s = said.first_s or time.monotonic() - started
                    said.text += chunk.text
                    said.reasoning += chunk.reasoning
                    said.usage = chunk.usage or said.usage
                    if (piece := chunk.tool_call) is not None:
                        call = said.calls.setdefault(piece.position, ["", ""])
                        call[0] += piece.name
                        call[1] += piece.arguments
        self.usage = said.usage
        return said


async def probe(bench: Bench) -> AsyncIterator[Finding]:
    """Every ability that the deployment's dialect can be asked for, in the order of PROBES."""
    for ability, (dialects, run) in PROBES.items():
        if dialects and bench.dialect not in dialects:
            yield Finding(ability=ability, works=False, detail=f"the dialect {bench.dialect} has no way to ask for it")
            continue
        bench.usage = Usage()
        started = time.monotonic()
        try:
            detail, works = await run(bench), True
        except NotShown as shown:
            detail, works = str(shown), False
        except Invalid as invalid:
            detail, works = invalid.members["detail"][0]["msg"], False
        except ProviderError as error:
            detail, works = remedy(error), False
        yield Finding(
            ability=ability,
            works=works,
            detail=detail,
            seconds=round(time.monotonic() - started, 3),
            input_tokens=bench.usage.input_tokens,
            output_tokens=bench.usage.output_tokens,
        )


def remedy(error: ProviderError) -> str:
    """What failed, in the vendor's words, and what the operator can do."""
    if isinstance(error, ProviderRefusedKey):
        return f"{error.phrase}: the key is refused; is it this server's, and may it use this model?"
    if isinstance(error, ProviderLimited):
        return f"{error.phrase}: the account is limited at this moment; try again later"
    if isinstance(error, ProviderTimedOut):
        return f"{error}; AIGW_TIMEOUTS__FIRST_BYTE_S or the deployment's `timeout_s` gives it more time"
    if isinstance(error, ProviderUnreachable):
        return f"{error}; is the server running, and the address right as seen from here?"
    if isinstance(error, ProviderRefused):
        hint = "; `torana models discover URL` lists what the server has" if error.upstream_code == 404 else ""
        return f"{error.phrase}: {_short(str(error))}{hint}"
    return _short(str(error))


async def _chat(bench: Bench) -> str:
    said = await bench.ask("Answer with one word: ready", stream=False)
    if not said.text.strip():
        raise NotShown("an empty answer")
    return _short(said.text)


async def _stream(bench: Bench) -> str:
    said = await bench.ask("Count from one to five, in words.")
    if not said.text.strip():
        raise NotShown("an empty answer")
    pieces = "1 piece" if said.pieces == 1 else f"{said.pieces} pieces"
    return f"{pieces}, the first after {said.first_s:.2f} s"


async def _tools(bench: Bench) -> str:
    said = await bench.ask("What is the weather in Paris? Use the tool.", tools=(WEATHER,), tool_choice=WEATHER.name)
    calls = [_call(call) for call in said.calls.values()]
    if not calls:
        raise NotShown("no tool was called")
    return f"called {calls[0]}"


async def _parallel_tools(bench: Bench) -> str:
    question = "What is the weather in Paris and in Rome? Call the tool for both at once."
    said = await bench.ask(question, tools=(WEATHER,), tool_choice="any", parallel_tool_calls=True)
    calls = [_call(call) for call in said.calls.values()]
    if len(calls) < 2:
        raise NotShown(f"{len(calls)} call at a time" if calls else "no tool was called")
    return f"{len(calls)} calls in one answer"


async def _json(bench: Bench) -> str:
    said = await bench.ask("Name a city and its country.", answer_schema=CITY, answer="json")
    try:
        found = json.loads(said.text)
    except (ValueError, RecursionError):
        raise NotShown(f"no JSON: {_short(said.text)}") from None
    if not isinstance(found, dict) or not {"name", "country"} <= found.keys():
        raise NotShown(f"JSON of another shape: {_short(said.text)}")
    return _short(said.text)


async def _images(bench: Bench) -> str:
    parts = (Image("image/png", data=red_square()), Text("Which colour is this? Answer with one word."))
    said = await bench.ask(messages=(Message("user", parts),))
    if "red" not in said.text.lower():
        raise NotShown(f"saw something else: {_short(said.text)}")
    return "saw a red square"


async def _reasoning(bench: Bench) -> str:
    question = "A bat and a ball cost 1.10 together. The bat costs 1.00 more than the ball. What does the ball cost?"
    said = await bench.ask(question, reasoning=Reasoning(effort="low"), max_tokens=4 * ANSWER_TOKENS)
    if not (said.reasoning or said.usage.reasoning_tokens):
        raise NotShown("no thoughts, and no tokens spent on them")
    return f"{said.usage.reasoning_tokens or 'some'} tokens of thought"


async def _fill_in(bench: Bench) -> str:
    prefix, suffix = "def add(a, b):\n    return ", "\n\n\nprint(add(2, 3))\n"
    marked = mark_cursor(bench.fill_in, prefix, suffix) if bench.fill_in else ""
    stop = FORMATS[bench.fill_in].stop if bench.fill_in else ()
    said = await bench.ask(
        prefix,
        deployment=replace(bench.deployment, as_text_completion=bench.deployment.provider != "demo"),
        fill_in=FillIn(prefix=prefix, suffix=suffix, language="python", file_name="add.py", marked_prompt=marked),
        max_tokens=32,
        stop=stop,
        answer="code",
    )
    if not said.text.strip():
        raise NotShown("nothing at the cursor")
    if prefix.strip() in said.text or any(mark in said.text for mark in stop):
        raise NotShown(f"it does not know where the cursor is: {_short(said.text)}")
    return f"{'between the marks of ' + bench.fill_in if bench.fill_in else 'unmarked'}: {_short(said.text)}"


async def _embeddings(bench: Bench) -> str:
    found = await bench.sender.embed(bench.deployment, EmbeddingsRequest(inputs=("torana",)))
    bench.usage = found.usage or Usage()
    return f"vectors of {len(found.rows[0])} numbers"


Probe = Callable[[Bench], Awaitable[str]]
"""Gives what it saw; raises NotShown, Invalid or ProviderError."""

_OPENAI_LIKE = ("chat_completions", "text_completions", "responses", "demo")
_TALKING = ("messages", "chat_completions", "responses", "generate_content", "converse", "demo")

PROBES: dict[str, tuple[tuple[str, ...], Probe]] = {
    "chat": ((), _chat),
    "stream": ((), _stream),
    "tools": (_TALKING, _tools),
    "parallel_tools": (_TALKING, _parallel_tools),
    "json": (_TALKING, _json),
    "images": (_TALKING, _images),
    "reasoning": (_TALKING, _reasoning),
    "fill_in": (_OPENAI_LIKE, _fill_in),
    "embeddings": ((*_OPENAI_LIKE, "generate_content", "converse"), _embeddings),
}
"""Ability → dialects that have a way to ask for it (empty: all), and how."""


def red_square() -> str:
    """A PNG of 16 by 16 red points, in base64."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    rows = (b"\x00" + b"\xff\x00\x00" * 16) * 16
    png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    return base64.b64encode(png).decode()


def _call(call: list[str]) -> str:
    name, arguments = call
    try:
        city = json.loads(arguments)["city"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise NotShown(f"a call of {name} with arguments that do not fit: {_short(arguments)}") from None
    return f"{name}({city})"


def _short(text: str) -> str:
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= 80 else line[:79] + "…"
