"""The chat completions dialect: reading answers, streamed and whole. Source: OpenAI API reference, "Streaming"."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec

from torana.chat import Chunk, FinishReason, ToolCallPiece, Usage
from torana.dialects import openai_style
from torana.dialects.bodies import decode_answer
from torana.dialects.call_ids import make_call_id
from torana.dialects.freeform import BEGIN, END, escape
from torana.dialects.members import Members, arguments_text, finite
from torana.dialects.streams import Seen
from torana.dialects.thought_details import ThoughtDetails
from torana.errors import ProviderBroke, provider_refused

NAME = "chat_completions"

MAX_WATCHED_CHARS = 64 * 1024
"""Of the arguments of a call without an id: each piece is added to them, and they are read to see if they are whole."""

_OTHER: FinishReason = "other"
_GIVEN_UP = {"error": 502, "insufficient_system_resource": 503, "abort": 502}
"""Ends of answers that are none: OpenRouter's, where the provider behind failed, DeepSeek's, out of machines, and
vLLM's and SGLang's, of an engine that stops."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    """Of Mistral and others also the object itself."""


class _Custom(msgspec.Struct):
    """The call of a custom tool."""

    name: str | None = None
    input: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | int | None = None
    """Of GLM behind NVIDIA's servers a number."""
    function: _Function | None = None
    custom: _Custom | None = None


class _Part(msgspec.Struct):
    """A part of a message, where a server writes several; Mistral's thoughts are parts with parts."""

    text: str | None = None
    thinking: "list[_Part] | None" = None


class _Said(msgspec.Struct):
    """A message or a piece of one. Servers name their thoughts in several ways; what is no text is none."""

    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None
    reasoning_details: Any = None
    """Of OpenRouter and MiniMax: the same with its proofs, without which Gemini's calls are refused when they come
    back."""
    tool_calls: list[_Call] | _Call | None = None
    """Of TGI's older streams the one call itself."""
    function_call: _Function | None = None
    """The older way, of one call without an id."""


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    """Of vLLM: the text that ended the answer; a token's number is none."""
    matched_stop: Any = None
    """The same of SGLang."""
    usage: Any = None
    """Of Moonshot, beside the reason."""
    error: openai_style.Error | str | None = None
    """Of OpenRouter, beside the reason `error`."""

    @property
    def stop_sequence(self) -> str:
        return next((text for text in (self.stop_reason, self.matched_stop) if isinstance(text, str)), "")


class _Answer(msgspec.Struct):
    """An answer or an event of one."""

    id: str | int | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    service_tier: Any = None
    error: openai_style.Error | str | None = None
    x_groq: Any = None
    """Of Groq: the usage, or why the stream stopped early."""


class _Glance(msgspec.Struct):
    """What a relayed event is looked at for."""

    model: str | None = None
    usage: Any = None
    service_tier: Any = None
    choices: Any = None


@dataclass(slots=True)
class _Begun:
    """A tool call of which more may come."""

    id: str = ""
    name: str = ""
    """Empty: nobody was told of it yet. Some servers name a call behind its first piece, others never: that is none."""
    position: int = -1
    is_silent: bool = True
    """Nothing was heard of its arguments."""
    arguments: str = ""
    """So far, of a call without an id or a name; of long ones the beginning."""
    _is_whole: bool | None = None
    """None: not looked at since more of them came. Servers may repeat the name with each of many pieces."""

    def add(self, arguments: str) -> None:
        if len(self.arguments) < MAX_WATCHED_CHARS:
            self.arguments += arguments
            self._is_whole = None

    def is_followed_by(self, id: str, name: str) -> bool:
        """True where a piece with these begins another call, although it has the same number.

        Some servers repeat id and name with every piece, others give every call the number 0, and of those some
        give no ids either.
        """
        if not self.name:
            return False
        if id or self.id:
            return bool(id and name) and id != self.id
        if not name or name != self.name:
            return bool(name)
        if self._is_whole is None:
            self._is_whole = _is_object(self.arguments)
        return self._is_whole


def _is_object(text: str) -> bool:
    try:
        return text.endswith("}") and bool(_any_json.decode(text))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


_any_json = msgspec.json.Decoder(msgspec.Raw)
_answers = msgspec.json.Decoder(_Answer, float_hook=finite)
_glances = msgspec.json.Decoder(_Glance, float_hook=finite)


class StreamedAnswer:
    """What is known of one streamed answer so far."""

    __slots__ = (
        "_begun",
        "_calls",
        "_details",
        "_finished",
        "_freeform",
        "_id",
        "_is_begun",
        "_positions",
        "_silent",
        "_usage",
    )

    def __init__(self, id: str = "") -> None:
        self._id = id
        self._is_begun = False
        self._usage: Usage | None = None
        self._calls: dict[tuple[int, int], _Begun] = {}
        """By choice and number; the latest where several have the same."""
        self._begun = 0
        """How many there were, of all choices."""
        self._positions: Counter[int] = Counter()
        """How many calls each choice has."""
        self._details: dict[int, ThoughtDetails] = {}
        """Of each choice, since its latest call."""
        self._freeform: dict[int, list[int]] = {}
        """Choice → positions of its calls of custom tools: their texts are not closed yet."""
        self._silent: dict[int, list[_Begun]] = {}
        """Choice → calls that began without arguments."""
        self._finished: dict[int, bool] = {}
        """Whether a choice has told why it ended."""

    def take(self, data: bytes, chunks: list[Chunk]) -> bool:
        """Append what one event brings; True for the terminal one."""
        if data == openai_style.DONE:
            if not self._is_begun:
                raise ProviderBroke("the stream ended before it began")
            # Some servers never tell why an answer ended; whoever asked is to run its calls all the same.
            for number in (number for number, is_told in self._finished.items() if not is_told):
                self._close_texts(number, chunks)
                finish = self._finish_of(_Choice(number))
                self._complete_calls(number, finish, chunks)
                chunks.append(Chunk(choice=number, finish=finish, usage=self._usage))
            chunks.append(Chunk(usage=self._usage, is_last=True))
            return True
        event = decode_answer(_answers, data)
        if event.error is not None:
            raise openai_style.refused(event.error)
        if event.choices is None:
            # A server's own kind of event, such as content filter results.
            openai_style.check_event(data)
        self._usage = openai_style.read_usage(_find_usage(event), self._usage, event.service_tier)
        # Azure begins with an event without choices, id or model.
        if event.choices and not self._is_begun:
            self._is_begun, self._id = True, openai_style.text_of_id(event.id)
            chunks.append(Chunk(id=self._id, model=event.model or ""))
        for choice in event.choices or ():
            number = choice.index or 0
            if number:
                openai_style.check_many(len(self._finished))
            self._finished[number] = bool(choice.finish_reason) or self._finished.get(number, False)
            if choice.delta is not None:
                self._take_said(number, choice.delta, chunks)
            if choice.finish_reason:
                self._close_texts(number, chunks)
                if self._positions[number]:
                    self._prove(number, chunks)
                finish, ended_by = self._finish_of(choice), choice.stop_sequence
                self._complete_calls(number, finish, chunks)
                chunks.append(Chunk(choice=number, finish=finish, stop_sequence=ended_by, usage=self._usage))
        return False

    def end(self, chunks: list[Chunk]) -> bool:
        """The body ended without the terminal event: true where nothing can have been cut off."""
        return openai_style.end_open(self._finished, self._usage, chunks)

    def _close_texts(self, choice: int, chunks: list[Chunk]) -> None:
        for position in self._freeform.pop(choice, ()):
            chunks.append(Chunk(choice=choice, tool_call=ToolCallPiece(position, arguments=END)))

    def _complete_calls(self, choice: int, finish: FinishReason, chunks: list[Chunk]) -> None:
        """Calls of whose arguments nothing was heard have none, unless they were cut off."""
        if finish != "tool_calls":
            return
        for call in self._silent.pop(choice, ()):
            if call.is_silent:
                chunks.append(Chunk(choice=choice, tool_call=ToolCallPiece(call.position, arguments="{}")))

    def _finish_of(self, choice: _Choice) -> FinishReason:
        """Raises ProviderRefused for an answer that was given up."""
        said = choice.finish_reason or "stop"
        if said in _GIVEN_UP and choice.error is not None:
            raise openai_style.refused(choice.error)
        if said in _GIVEN_UP:
            raise provider_refused(_GIVEN_UP[said], "the answer was given up", kind=said)
        finish = openai_style.FINISHES.get(said, _OTHER)
        # Older servers, and OpenAI where a call was forced, end with `stop` after calls too, others in their own words.
        has_calls = self._positions[choice.index or 0] > 0
        return "tool_calls" if has_calls and finish in ("stop", _OTHER) else finish

    def _take_said(self, choice: int, said: _Said, chunks: list[Chunk]) -> None:
        # A message's thoughts came first, whatever the order of its members.
        thoughts = (said.reasoning_content, said.reasoning, said.thinking)
        if reasoning := next((each for each in thoughts if each and isinstance(each, str)), ""):
            chunks.append(Chunk(choice=choice, reasoning=reasoning, dialect=NAME))
        if isinstance(said.reasoning_details, list):
            self._details.setdefault(choice, ThoughtDetails()).add(said.reasoning_details)
        if said.content:
            _take_text(choice, said.content, chunks)
        elif said.refusal:
            chunks.append(Chunk(said.refusal, choice, is_refusal=True))
        told = said.tool_calls or ()
        calls = (told,) if isinstance(told, _Call) else told
        if said.function_call is not None:
            name = said.function_call.name
            calls = (*calls, _Call(0, name, said.function_call))
        for at, call in enumerate(calls):
            self._take_call(choice, at if call.index is None else call.index, call, chunks)

    def _take_call(self, choice: int, number: int, call: _Call, chunks: list[Chunk]) -> None:
        function, custom = call.function or _Function(), call.custom
        if custom is not None:
            function = _Function(custom.name, escape(custom.input or ""))
        id_, name, arguments = openai_style.text_of_id(call.id), function.name or "", arguments_text(function.arguments)
        known = self._calls.get((choice, number))
        if known is None or known.is_followed_by(id_, name):
            self._begun += 1
            openai_style.check_many(self._begun)
            known = self._calls[choice, number] = _Begun()
        is_new = not known.name
        if is_new:
            known.id, known.name = known.id or id_, name
        if known.is_silent and arguments == "null":
            arguments = ""  # an object has it within alone
        if arguments or custom is not None:
            known.is_silent = False
        held = known.arguments
        if not known.id or not known.name:
            known.add(arguments)
        if not known.name:
            return
        if not is_new:
            chunks.append(Chunk(choice=choice, tool_call=ToolCallPiece(known.position, arguments=arguments)))
            return
        self._prove(choice, chunks)
        # Servers count from 1 too, or number calls among other blocks; here they have no gaps.
        known.position = self._positions[choice]
        self._positions[choice] += 1
        if known.is_silent:
            self._silent.setdefault(choice, []).append(known)
        arguments = held + arguments
        shown_id = known.id or make_call_id(self._id, choice, known.position, name, arguments)
        if custom is not None:
            self._freeform.setdefault(choice, []).append(known.position)
            arguments = BEGIN + arguments
        chunks.append(Chunk(choice=choice, tool_call=ToolCallPiece(known.position, shown_id, name, arguments)))

    def _prove(self, choice: int, chunks: list[Chunk]) -> None:
        """Tell the proof of the thoughts that led to a call; of others nobody wants it back."""
        details = self._details.pop(choice, None)
        if details is not None and (proof := details.proof()):
            chunks.append(Chunk(choice=choice, signature=proof, dialect=NAME))


def read_answer(body: bytes) -> list[Chunk]:
    """A whole answer as chunks; raises ProviderBroke, or ProviderRefused for an error with status 200."""
    answer = decode_answer(_answers, body)
    if answer.error is not None:
        raise openai_style.refused(answer.error)
    if not answer.choices:
        openai_style.check_event(body)
        raise ProviderBroke("no choices")
    id_ = openai_style.text_of_id(answer.id)
    chunks = [Chunk(id=id_, model=answer.model or "")]
    state = StreamedAnswer(id_)
    openai_style.number_choices(answer.choices)
    for choice in answer.choices:
        if choice.message is None:
            raise ProviderBroke("a choice without its message")
        # A message of its own numbers no calls, but then their order does.
        number = choice.index or 0
        state._take_said(number, choice.message, chunks)
        state._close_texts(number, chunks)
        finish = state._finish_of(choice)
        chunks.append(Chunk(choice=number, finish=finish, stop_sequence=choice.stop_sequence))
    usage = openai_style.read_usage(_find_usage(answer), tier=answer.service_tier)
    chunks.append(Chunk(usage=usage, is_last=True))
    return chunks


def _take_text(choice: int, text: str | list[_Part], chunks: list[Chunk]) -> None:
    if isinstance(text, str):
        chunks.append(Chunk(text, choice))
        return
    for part in text:
        if thought := "".join(each.text or "" for each in part.thinking or ()):
            chunks.append(Chunk(choice=choice, reasoning=thought, dialect=NAME))
        if part.text:
            chunks.append(Chunk(part.text, choice))


def _find_usage(event: _Answer) -> Any:
    """Where the server says it; raises ProviderRefused where it says instead why it stopped."""
    groqs = event.x_groq if isinstance(event.x_groq, dict) else {}
    if error := groqs.get("error"):
        raise openai_style.refused(error if isinstance(error, str) else None)
    if event.usage is not None:
        return event.usage
    told = (choice.usage for choice in event.choices or () if choice.usage is not None)
    return groqs.get("usage") or next(told, None)


def look(data: bytes, usage: Usage | None) -> Seen:
    """What a relayed event says; raises ProviderBroke for junk."""
    if data == openai_style.DONE:
        return usage, "", True, None
    event = decode_answer(_glances, data)
    choices = [each for each in event.choices if isinstance(each, dict)] if isinstance(event.choices, list) else []
    said = event.usage or next((each["usage"] for each in choices if each.get("usage")), None)
    told = openai_style.read_usage(said, usage, event.service_tier)
    return told, event.model or "", False, _find_finish(choices)


def _find_finish(choices: list[Members]) -> FinishReason | None:
    for choice in choices:
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str):
            return openai_style.FINISHES.get(reason, _OTHER)
    return None
