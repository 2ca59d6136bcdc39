"""The generate content dialect: reading answers, streamed and whole, and watching relayed ones.

Source: Gemini API reference, "GenerateContentResponse" and "streamGenerateContent"; Vertex AI reference, "Generate
content with the Gemini API".

A stream has no terminal event, and older models finish every one of its events with STOP. So the end of the body is
the end of the answer, and each candidate's last word must be a finish reason.
"""

from typing import Any

import msgspec

from torana.chat import Chunk, FinishReason, ToolCallPiece, Usage
from torana.dialects import openai_style
from torana.dialects.bodies import decode_answer
from torana.dialects.call_ids import make_call_id
from torana.dialects.generate_content_errors import Error, refuse
from torana.dialects.json_pieces import EitherForm
from torana.dialects.members import Members, finite, read_tiers, read_tokens, suspect
from torana.dialects.sse import Event
from torana.dialects.streams import StreamReader
from torana.errors import ProviderBroke, ProviderError, ProviderGaveUp

NAME = "generate_content"

MAX_WATCHED_BYTES = 8 * 1024 * 1024
"""Of one event of a relayed stream: pictures come in one piece."""

FINISHES: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
"""All others are an end that is nobody's wish, `other`."""

_GIVEN_UP = frozenset({"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"})
"""Ends of what the model got wrong. Where nothing was said before, agents would take the answer for an empty one that
ends their turn, and another try mostly succeeds."""


class _Call(msgspec.Struct):
    id: str | None = None
    name: str | None = None
    args: Any = None


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    index: int = 0
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Answer(msgspec.Struct, rename="camel"):
    """A whole answer or one event of a stream: they have the same shape."""

    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Any = None
    model_version: str | None = None
    response_id: str | None = None
    error: Error | None = None


class _GlancedCandidate(msgspec.Struct, rename="camel"):
    finish_reason: str | None = None


class _Glance(msgspec.Struct, rename="camel"):
    """What a relayed event or answer is looked at for."""

    candidates: list[_GlancedCandidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Any = None
    model_version: str | None = None


_answers = msgspec.json.Decoder(_Answer, float_hook=finite)
_glances = msgspec.json.Decoder(_Glance, float_hook=finite)


def merge_usage(before: Usage | None, said: Any) -> Usage | None:
    """Usage after the provider said `said`, cumulative; what it leaves out stands as it was.

    Thoughts come on top of the candidates' tokens, and what its own tools put into the prompt on top of the prompt's.
    Cached tokens are part of the prompt. Some answers count thoughts among the candidates: there the total tells.
    """
    if not isinstance(said, dict) or said.keys().isdisjoint(_COUNTS):
        return before
    known = before or Usage()
    counts: list[int | None] = [None if said.get(name) is None else read_tokens(said[name]) for name in _COUNTS]
    if any(count is None and said.get(name) is not None for name, count in zip(_COUNTS, counts, strict=True)):
        return suspect(before)
    prompt, from_tools, cached, answered, thought, total = counts
    if prompt is not None:
        prompt += from_tools or 0
    thoughts = known.reasoning_tokens if thought is None else thought
    if answered is None:
        output = max(known.output_tokens, thoughts)
    elif thoughts and total is not None and prompt is not None and prompt + answered == total:
        output = answered
    else:
        output = answered + thoughts
    taken = known.input_tokens if prompt is None else prompt
    return Usage(
        input_tokens=taken,
        output_tokens=output,
        cache_read_tokens=min(known.cache_read_tokens if cached is None else cached, taken),
        reasoning_tokens=min(thoughts, output),
        is_counted=answered is None and total is None and (before is None or before.is_counted),
        is_suspect=known.is_suspect,
        tiers=_read_tiers(said) or known.tiers,
    )


_COUNTS = (
    *("promptTokenCount", "toolUsePromptTokenCount", "cachedContentTokenCount"),
    *("candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"),
)


def _read_tiers(said: Members) -> tuple[str, ...]:
    """Gemini's own API tells `serviceTier`, Google Cloud `trafficType`: ON_DEMAND, ON_DEMAND_FLEX …"""
    traffic = said.get("trafficType")
    return read_tiers(said.get("serviceTier"), traffic.removeprefix("ON_DEMAND_") if isinstance(traffic, str) else None)


def read_events() -> StreamReader:
    answer = StreamedAnswer()
    return StreamReader(answer.take, EitherForm(), answer.end)


class StreamedAnswer:
    """What is known of one streamed answer so far."""

    __slots__ = ("_calls", "_finishes", "_has_said", "_id", "_is_begun", "_is_blocked", "_usage")

    def __init__(self) -> None:
        self._id = ""
        self._is_begun = False
        self._is_blocked = False
        self._has_said = False
        """Anything but thoughts."""
        self._usage: Usage | None = None
        self._calls: dict[int, int] = {}
        """Choice → how many tool calls it has made."""
        self._finishes: dict[int, FinishReason | None] = {}
        """Choice → how it has ended, by its latest event that said so."""

    def take(self, data: bytes, chunks: list[Chunk]) -> bool:
        """Append what one event brings. There is no terminal one: always False."""
        if data != openai_style.DONE:  # added by servers of several formats
            self.take_answer(decode_answer(_answers, data), chunks)
        return False

    def take_answer(self, answer: _Answer, chunks: list[Chunk]) -> None:
        if answer.error is not None:
            raise refuse(answer.error)
        self._usage = merge_usage(self._usage, answer.usage_metadata)
        feedback = answer.prompt_feedback
        self._is_blocked = self._is_blocked or (feedback is not None and bool(feedback.block_reason))
        if not self._is_begun:
            self._is_begun = True
            self._id = answer.response_id or ""
            chunks.append(Chunk(id=self._id, model=answer.model_version or "", usage=self._usage))
        for candidate in answer.candidates or ():
            choice = candidate.index
            self._finishes.setdefault(choice, None)
            for part in (candidate.content and candidate.content.parts) or ():
                self._take_part(choice, part, chunks)
            if candidate.finish_reason in _GIVEN_UP and not self._has_said:
                raise ProviderGaveUp(f"the model's answer came to nothing: {candidate.finish_reason}")
            if candidate.finish_reason:
                self._finishes[choice] = FINISHES.get(candidate.finish_reason, "other")

    def end(self, chunks: list[Chunk]) -> bool:
        """The last chunks; False where the answer has no end of its own."""
        if not self._finishes and self._is_blocked:
            self._finishes[0] = "content_filter"
        if not self._finishes or None in self._finishes.values():
            return False
        for choice, finish in sorted(self._finishes.items()):
            if finish == "stop" and choice in self._calls:
                finish = "tool_calls"
            chunks.append(Chunk(choice=choice, finish=finish))
        chunks[-1] = msgspec.structs.replace(chunks[-1], usage=self._usage, is_last=True)
        return True

    def _take_part(self, choice: int, part: _Part, chunks: list[Chunk]) -> None:
        signature = part.thought_signature or ""
        if part.function_call is not None:
            if signature:
                chunks.append(Chunk(choice=choice, signature=signature, dialect=NAME))
            chunks.append(Chunk(choice=choice, tool_call=self._read_call(choice, part.function_call)))
            self._has_said = True
            return
        if part.text:
            self._has_said = self._has_said or not part.thought
            chunks.append(
                Chunk(choice=choice, reasoning=part.text, dialect=NAME) if part.thought else Chunk(part.text, choice)
            )
        if signature:
            chunks.append(Chunk(choice=choice, signature=signature, dialect=NAME))

    def _read_call(self, choice: int, call: _Call) -> ToolCallPiece:
        position = self._calls.get(choice, 0)
        self._calls[choice] = position + 1
        arguments = msgspec.json.encode({} if call.args is None else call.args).decode()
        name = call.name or ""
        return ToolCallPiece(
            position, call.id or make_call_id(self._id, choice, position, name, arguments), name, arguments
        )


def read_answer(body: bytes) -> list[Chunk]:
    """A whole answer as chunks, or a whole stream; raises ProviderBroke, or ProviderRefused for an error in it."""
    if body.lstrip()[:1] == b"[":
        reader = read_events()
        return [*reader.feed(body), *reader.close()]
    answer = StreamedAnswer()
    chunks: list[Chunk] = []
    answer.take(body, chunks)
    if not answer.end(chunks):
        raise ProviderBroke("an answer without a finish reason")
    return chunks


_FINISH = b'"finishReason"'


class ContentScan:
    """Watches a relayed stream of either form. Complete: the last candidates that were seen have finished.

    The models that finished every event with STOP are shut down; what still serves does so in its last one.
    """

    __slots__ = ("_is_blind", "_is_finished", "_parser", "failure", "finish", "model", "usage")

    def __init__(self) -> None:
        self._parser = EitherForm(MAX_WATCHED_BYTES)
        self._is_finished = False
        self._is_blind = False
        """An event too large to be held came by: nothing can be said any more."""
        self.usage: Usage | None = None
        self.model = ""
        self.finish: FinishReason | None = None
        self.failure: ProviderError | None = None

    def feed(self, data: bytes) -> None:
        if not self._is_blind:
            try:
                self._look(self._parser.feed(data))
            except ProviderBroke:
                self._is_blind = True

    @property
    def is_complete(self) -> bool:
        # A stream may end without the last line's end.
        if not self._is_finished and _FINISH in (rest := self._parser.rest):
            self._look([(b"", rest.removeprefix(b"data:"))])
        return self._is_finished or self._is_blind

    def _look(self, events: list[Event]) -> None:
        for _, data in events:
            try:
                event = decode_answer(_glances, data)
            except ProviderBroke:
                continue
            self.usage = merge_usage(self.usage, event.usage_metadata)
            self.model = self.model or event.model_version or ""
            if event.candidates:
                self._is_finished = all(candidate.finish_reason for candidate in event.candidates)
                if reason := event.candidates[0].finish_reason:
                    self.finish = FINISHES.get(reason, "other")
            elif event.prompt_feedback is not None and event.prompt_feedback.block_reason:
                self._is_finished = True


def scan_answer(body: bytes) -> Usage | None:
    """What a relayed answer of either form says it used; never raises."""
    scan = ContentScan()
    scan.feed(body)
    return scan.usage
