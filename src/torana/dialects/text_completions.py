"""The text completions dialect: raw text to be carried on, for code models with their own markers.

Source: OpenAI API reference, "Completions" (legacy), as vLLM and others serve it.
"""

from typing import Any

import msgspec

from torana.chat import ChatRequest, Chunk, Document, FillIn, FinishReason, Foreign, Message, Text, Thought, Usage
from torana.dialects import openai_style
from torana.dialects.bodies import decode_answer, decode_request
from torana.dialects.chat_completions_answers import look
from torana.dialects.chat_completions_asking import write_sampling
from torana.dialects.collecting import collect
from torana.dialects.dialect import Dialect
from torana.dialects.media import tell_document, text_of
from torana.dialects.members import (
    Members,
    find_number,
    find_text,
    find_texts,
    find_whole,
    finite,
    keep_extra,
    need_text,
    tell,
    unspoken_elsewhere,
    with_extra,
)
from torana.dialects.streams import LineScan, StreamReader
from torana.errors import Invalid, ProviderBroke

NAME = "text_completions"

_SPOKEN = frozenset({"model", "prompt", "suffix", "max_tokens", "temperature", "top_p", "stop", "n", "user", "stream"})
_HARMLESS = frozenset({"stream_options", "echo"})
_OTHER: FinishReason = "other"


class _Said(msgspec.Struct):
    content: str | None = None


class _LogProbs(msgspec.Struct):
    token_logprobs: list[float | None] | None = None


class _Choice(msgspec.Struct):
    """Mistral's fill-in-the-middle answers say their text as chat completions do."""

    index: int | None = None
    text: str | None = None
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _Answer(msgspec.Struct):
    """An answer or an event of one."""

    id: str | int | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: openai_style.Error | str | None = None


_answers = msgspec.json.Decoder(_Answer, float_hook=finite)


def read_request(body: bytes) -> tuple[ChatRequest, str]:
    """A body of POST /v1/completions with one prompt; raises Invalid."""
    members = decode_request(body)
    model = need_text(members, "model")
    chat = _read_words(members)
    return keep_extra(chat, NAME, members, lambda: _write_words(chat, set()), _SPOKEN | _HARMLESS), model


def write_request(chat: ChatRequest, model: str, *, stream: bool) -> bytes:
    """The body that asks `model`: the marked prompt where there is one, else what stands before the cursor.

    Raises Invalid for what is no text.
    """
    return msgspec.json.encode(write_members(chat, model, stream=stream))


def write_members(chat: ChatRequest, model: str, *, stream: bool) -> Members:
    members = with_extra(chat, NAME, _write_words(chat, set()), _read_words, _SPOKEN, stream=stream)
    return {"model": model, **openai_style.ask_for_usage(members, stream=stream)}


def losses(chat: ChatRequest, model: str) -> tuple[str, ...]:
    lost = unspoken_elsewhere(chat, NAME)
    _write_words(chat, lost)
    return tell(lost)


def _read_words(members: Members) -> ChatRequest:
    prompts = find_texts(members, "prompt")
    if len(prompts) != 1:
        raise Invalid(("prompt",), "Input should be one string", "string_type")
    choices = find_whole(members, "n")
    return ChatRequest(
        messages=(Message("user", (Text(prompts[0]),)),),
        fill_in=FillIn(prefix=prompts[0], suffix=find_text(members, "suffix")),
        max_tokens=find_whole(members, "max_tokens"),
        temperature=find_number(members, "temperature"),
        top_p=find_number(members, "top_p"),
        stop=find_texts(members, "stop"),
        choices=1 if choices is None else choices,
        user=find_text(members, "user"),
        answer="code",
        stream=members.get("stream") is True,
    )


def _write_words(chat: ChatRequest, lost: set[str]) -> Members:
    members = _write_prompt(chat, lost)
    if chat.max_tokens is not None:
        members["max_tokens"] = chat.max_tokens
    members |= write_sampling(chat, lost)
    if chat.choices != 1:
        members["n"] = chat.choices
    if chat.wants_scores:
        members["logprobs"] = 1
    if chat.user:
        members["user"] = chat.user
    lost |= {name for name in ("answer_schema", "wants_json", "reasoning") if getattr(chat, name)}
    return members


def _write_prompt(chat: ChatRequest, lost: set[str]) -> Members:
    if chat.fill_in is None:
        if chat.tools and chat.tool_choice != "none":
            raise Invalid(("tools",), "This model carries text on and calls no tools")
        return {"prompt": "\n\n".join(_tell(message, lost) for message in chat.messages)}
    if chat.fill_in.marked_prompt:
        return {"prompt": chat.fill_in.marked_prompt}
    suffix = {"suffix": chat.fill_in.suffix} if chat.fill_in.suffix else {}
    return {"prompt": chat.fill_in.prefix, **suffix}


def _tell(message: Message, lost: set[str]) -> str:
    texts: list[str] = []
    for part in message.parts:
        match part:
            case Text():
                texts.append(part.text)
            case Document() if (text := text_of(part)) is not None:
                texts.append(tell_document(part.title, text))
            case Thought():
                lost.add("thought")
            case Foreign(is_aside=True):
                lost.add(part.kind[:40])
            case _:
                kind = part.kind if isinstance(part, Foreign) else type(part).__name__.lower()
                raise Invalid(("messages",), f"This model cannot be given content of type {kind[:40]}")
    return "".join(texts)


class StreamedAnswer:
    """What is known of one streamed answer so far."""

    __slots__ = ("_finished", "_is_begun", "_usage")

    def __init__(self) -> None:
        self._is_begun = False
        self._finished: dict[int, bool] = {}
        """Whether a choice has told why it ended."""
        self._usage: Usage | None = None

    def take(self, data: bytes, chunks: list[Chunk]) -> bool:
        """Append what one event brings; True for the terminal one."""
        if data == openai_style.DONE:
            if not self._is_begun:
                raise ProviderBroke("the stream ended before it began")
            chunks.append(Chunk(usage=self._usage, is_last=True))
            return True
        event = decode_answer(_answers, data)
        if event.error is not None:
            raise openai_style.refused(event.error)
        if event.choices is None:
            openai_style.check_event(data)
        self._usage = openai_style.read_usage(event.usage, self._usage)
        # Azure begins with an event without choices, id or model.
        if event.choices and not self._is_begun:
            self._is_begun = True
            chunks.append(Chunk(id=openai_style.text_of_id(event.id), model=event.model or ""))
        for choice in event.choices or ():
            number = choice.index or 0
            if number:
                openai_style.check_many(len(self._finished))
            self._finished[number] = bool(choice.finish_reason) or self._finished.get(number, False)
            _take_choice(choice, chunks)
        return False

    def end(self, chunks: list[Chunk]) -> bool:
        """The body ended without the terminal event: true where nothing can have been cut off."""
        return openai_style.end_open(self._finished, self._usage, chunks)


def _text_of(choice: _Choice) -> str | None:
    said = choice.delta or choice.message
    return choice.text if said is None else said.content


def _take_choice(choice: _Choice, chunks: list[Chunk]) -> None:
    number = choice.index or 0
    if text := _text_of(choice):
        chunks.append(Chunk(text, number))
    if choice.finish_reason:
        chunks.append(Chunk(choice=number, finish=openai_style.FINISHES.get(choice.finish_reason, _OTHER)))


def _score_of(choice: _Choice) -> float | None:
    """The mean; None where the provider tells none, or not in this dialect's way."""
    try:
        told = msgspec.convert(choice.logprobs, _LogProbs).token_logprobs if choice.logprobs else None
    except msgspec.ValidationError:
        return None
    numbers = [number for number in told or () if number is not None]
    return sum(numbers) / len(numbers) if numbers else None


def read_answer(body: bytes) -> list[Chunk]:
    """A whole answer as chunks; raises ProviderBroke, or ProviderRefused for an error with status 200."""
    answer = decode_answer(_answers, body)
    if answer.error is not None:
        raise openai_style.refused(answer.error)
    # One that says why it ended has ended, whatever it said.
    if not answer.choices or any(_text_of(each) is None and not each.finish_reason for each in answer.choices):
        raise ProviderBroke("no choices")
    chunks = [Chunk(id=openai_style.text_of_id(answer.id), model=answer.model or "")]
    openai_style.number_choices(answer.choices)
    for choice in answer.choices:
        _take_choice(choice, chunks)
        if (score := _score_of(choice)) is not None:
            chunks.append(Chunk(choice=choice.index or 0, score=score))
    chunks.append(Chunk(usage=openai_style.read_usage(answer.usage), is_last=True))
    return chunks


class TextCompletionsWriter:
    """Writes a stream of texts; the last finish waits for the end and carries the usage."""

    __slots__ = ("_envelope", "_finish", "_usage")

    def __init__(self, model: str, id: str, created: int, _asked: ChatRequest | None = None) -> None:
        self._envelope: Members = {"id": id, "object": "text_completion", "created": created, "model": model}
        self._finish: tuple[int, FinishReason] | None = None
        self._usage: Usage | None = None

    def write(self, chunks: list[Chunk]) -> bytes:
        out: list[bytes] = []
        for chunk in chunks:
            self._usage = chunk.usage or self._usage
            if chunk.text:
                out.append(self._write_choice(chunk.choice, chunk.text, None, {}))
            if chunk.finish:
                if self._finish:
                    out.append(self._write_finish(*self._finish, {}))
                self._finish = (chunk.choice, chunk.finish)
            if chunk.is_last:
                usage = {"usage": openai_style.write_usage(self._usage)} if self._usage else {}
                out.append(self._write_finish(*(self._finish or (0, "stop")), usage))
                out.append(b"data: [DONE]\n\n")
        return b"".join(out)

    def error(self, status: int, code: str, message: str) -> bytes:
        return openai_style.write_error_event(status, code, message)

    def _write_finish(self, choice: int, finish: FinishReason, more: Members) -> bytes:
        return self._write_choice(choice, "", _name_finish(finish), more)

    def _write_choice(self, choice: int, text: str, finish: str | None, more: Members) -> bytes:
        choices = [{"index": choice, "text": text, "logprobs": None, "finish_reason": finish}]
        return b"data: %b\n\n" % msgspec.json.encode({**self._envelope, "choices": choices, **more})


def _name_finish(finish: FinishReason) -> str:
    """The format knows no tools."""
    return "stop" if finish == "tool_calls" else openai_style.FINISH_NAMES[finish]


def write_answer(chunks: list[Chunk], model: str, id: str, created: int, _asked: ChatRequest | None = None) -> bytes:
    """One JSON answer."""
    collected = collect(chunks)
    choices = [
        {"index": at, "text": choice.text, "logprobs": None, "finish_reason": _name_finish(choice.finish)}
        for at, choice in enumerate(collected.choices)
    ]
    return msgspec.json.encode(
        {
            "id": id,
            "object": "text_completion",
            "created": created,
            "model": model,
            "choices": choices,
            "usage": openai_style.write_usage(collected.usage),
        }
    )


def read_open_events() -> StreamReader:
    """For servers whose streams just end."""
    answer = StreamedAnswer()
    return StreamReader(answer.take, end=answer.end)


TEXT_COMPLETIONS = Dialect(
    name=NAME,
    path="/v1/completions",
    read_request=read_request,
    write_request=write_request,
    losses=losses,
    read_events=lambda: StreamReader(StreamedAnswer().take),
    read_answer=read_answer,
    write_events=TextCompletionsWriter,
    write_answer=write_answer,
    read_error=openai_style.read_error,
    write_error=openai_style.write_error,
    write_error_event=openai_style.write_error_event,
    scan_events=lambda: LineScan((openai_style.DONE,), look, openai_style.REASONS),
    scan_answer=openai_style.scan_answer,
)
