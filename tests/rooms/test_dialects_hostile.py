"""Providers that say too much, too little, or what cannot be (ST7, ST10, ST11, ST12)."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from torana.chat import ChatRequest, Chunk, Message, ToolCall, ToolCallPiece, Usage
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.collecting import collect
from torana.dialects.dialect import Dialect
from torana.dialects.freeform import Unwrapping
from torana.dialects.messages import MESSAGES
from torana.dialects.messages_writing import MessagesWriter, tell_too_long
from torana.dialects.responses import RESPONSES
from torana.dialects.text_completions import TEXT_COMPLETIONS
from torana.errors import Invalid, ProviderBroke, provider_refused

DIALECTS = [MESSAGES, CHAT_COMPLETIONS, TEXT_COMPLETIONS, RESPONSES]
dialects = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)

Data = dict[str, Any] | bytes


def openai_usage(taken: Any, given: Any) -> Data:
    return {"choices": [], "usage": {"prompt_tokens": taken, "completion_tokens": given}}


def ended(taken: Any, given: Any) -> Data:
    usage = {"input_tokens": taken, "output_tokens": given}
    return {"type": "response.completed", "response": {"usage": usage}}


BEGIN: dict[str, list[Data]] = {
    "messages": [{"type": "message_start", "message": {"id": "a", "usage": {"input_tokens": 5, "output_tokens": 1}}}],
    "chat_completions": [{"choices": [{"index": 0, "delta": {"content": ""}}]}],
    "text_completions": [{"choices": [{"index": 0, "text": ""}]}],
    "responses": [{"type": "response.created", "response": {"id": "a"}}],
}
SAY: dict[str, Callable[[str], Data]] = {
    "messages": lambda text: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}},
    "chat_completions": lambda text: {"choices": [{"index": 0, "delta": {"content": text}}]},
    "text_completions": lambda text: {"choices": [{"index": 0, "text": text}]},
    "responses": lambda text: {"type": "response.output_text.delta", "delta": text},
}
END: dict[str, list[Data]] = {
    "messages": [{"type": "message_stop"}],
    "chat_completions": [b"[DONE]"],
    "text_completions": [b"[DONE]"],
    "responses": [ended(5, 7)],
}


def event(data: Data) -> bytes:
    return b"data: %b\n\n" % (data if isinstance(data, bytes) else json.dumps(data).encode())


def read(dialect: Dialect, *events: Data) -> list[Chunk]:
    reader = dialect.read_events()
    return reader.feed(b"".join(map(event, events))) + reader.close()


@dialects
def test_what_follows_the_end_is_not_read(dialect: Dialect) -> None:
    name = dialect.name
    whole = [*BEGIN[name], SAY[name]("yes"), *END[name]]

    chunks = read(dialect, *whole, *END[name], SAY[name]("no"), b"{garbage", *whole)

    assert [chunk.is_last for chunk in chunks].count(True) == 1
    assert (chunks[-1].is_last, collect(chunks).choices[0].text) == (True, "yes")


@dialects
def test_a_relayed_stream_that_ends_twice_has_ended_once(dialect: Dialect) -> None:
    name = dialect.name
    scan = dialect.scan_events()

    scan.feed(b"".join(map(event, [*BEGIN[name], *END[name], *END[name], b"{garbage"])))

    assert scan.is_complete


TOLD: list[tuple[str, list[Data], Usage | None]] = [
    ("chat_completions", [], None),
    ("chat_completions", [openai_usage(5, 3), openai_usage(5, 9)], Usage(5, 9)),
    ("chat_completions", [openai_usage(5, 9), openai_usage(5, 3)], Usage(5, 3)),
    ("chat_completions", [openai_usage(5, 9), openai_usage(5, -1)], Usage(5, 9, is_suspect=True)),
    ("chat_completions", [openai_usage(5, 9), openai_usage(5, 10**30)], Usage(5, 9, is_suspect=True)),
    ("chat_completions", [openai_usage(5, 10**30), openai_usage(5, 9)], Usage(5, 9)),
    ("chat_completions", [openai_usage("5", 9)], Usage(is_suspect=True)),
    ("text_completions", [], None),
    ("text_completions", [openai_usage(5, 3), openai_usage(5, 9)], Usage(5, 9)),
    ("text_completions", [openai_usage(-1, 9)], Usage(is_suspect=True)),
    ("messages", [], Usage(5, 1)),
    ("messages", [{"type": "message_delta", "usage": {"output_tokens": n}} for n in (3, 9)], Usage(5, 9)),
    ("messages", [{"type": "message_delta", "usage": {"output_tokens": n}} for n in (9, 3)], Usage(5, 3)),
    ("messages", [{"type": "message_delta", "usage": {"output_tokens": -1}}], Usage(5, 1, is_suspect=True)),
    ("messages", [{"type": "message_delta", "usage": {"input_tokens": 10**30}}], Usage(5, 1, is_suspect=True)),
    ("messages", [{"type": "message_delta", "usage": None}], Usage(5, 1)),
    ("responses", [ended(5, 9)], Usage(5, 9)),
    ("responses", [ended(5, -9)], Usage(is_suspect=True)),
    ("responses", [ended(5, 10**30)], Usage(is_suspect=True)),
    ("responses", [{"type": "response.completed", "response": {}}], None),
]


@pytest.mark.parametrize(("name", "told", "usage"), TOLD)
def test_the_last_usage_that_can_be_stands(name: str, told: list[Data], usage: Usage | None) -> None:
    dialect = next(each for each in DIALECTS if each.name == name)
    end = [] if name == "responses" else END[name]

    chunks = read(dialect, *BEGIN[name], *told, *end)
    scan = dialect.scan_events()
    scan.feed(b"".join(map(event, [*BEGIN[name], *told, *end])))

    assert chunks[-1].usage == usage
    assert scan.usage == usage


DEEP = b"[" * 100_000 + b"]" * 100_000
MANY = b",".join(b'"k%d":%d' % (number, number) for number in range(50_000))
ODD = [
    b'{"type":"ping","choices":[],"x":' + DEEP + b"}",
    b'{"type":"ping","choices":[{"index":NaN}],"output_index":NaN,"index":NaN}',
    b'{"type":"ping","choices":[],"x":Infinity}',
    b'{"type":"ping","choices":[{"index":' + b"9" * 100_000 + b'}],"index":1,"output_index":' + b"9" * 100_000 + b"}",
    b'{"type":"ping","choices":[],"x":"\xc3\x28"}',
    b'{"type":"ping","choices":[],"x":"\x00"}',
]


@dialects
@pytest.mark.parametrize("odd", ODD, ids=["deep", "nan", "infinity", "number", "utf8", "nul"])
def test_json_that_cannot_be_breaks_the_stream_and_nothing_else(dialect: Dialect, odd: bytes) -> None:
    name = dialect.name
    reader = dialect.read_events()
    begun = [*BEGIN[name], SAY[name]("yes")]

    chunks = reader.feed(b"".join(map(event, begun)) + event(odd))

    assert collect(chunks).choices[0].text == "yes"
    # A dialect that never looks at a number does not stumble over it.
    is_looked_at = not (odd is ODD[3] and name == "messages")
    if is_looked_at:
        with pytest.raises(ProviderBroke):
            reader.close()
        with pytest.raises(ProviderBroke):
            dialect.read_answer(odd)


@dialects
def test_a_long_text_of_digits_is_no_number(dialect: Dialect) -> None:
    digits = "9" * 900_000
    chunks = read(dialect, *BEGIN[dialect.name], SAY[dialect.name](digits), *END[dialect.name])

    again = dialect.read_answer(dialect.write_answer(chunks, "m", "id", 0) + b" " * 2**20)

    assert collect(again).choices[0].text == digits


@dialects
def test_many_keys_and_the_same_key_twice_are_read_over(dialect: Dialect) -> None:
    name = dialect.name
    many = b'{"type":"ping","choices":[],' + MANY + b"}"
    twice = b'{"type":"ping","type":"ping","choices":[],"choices":[]}'

    chunks = read(dialect, *BEGIN[name], many, twice, SAY[name]("yes"), *END[name])

    assert collect(chunks).choices[0].text == "yes"


LETTERS = "a\u0000b\u2028c\u2029dé🙂\ufeff\x7f\x1f"


@dialects
def test_odd_letters_reach_the_client_in_valid_json(dialect: Dialect) -> None:
    chunks = read(dialect, *BEGIN[dialect.name], SAY[dialect.name](LETTERS), *END[dialect.name])

    for writer in DIALECTS:
        stream = writer.write_events("m", "id", 0).write(chunks)
        whole = writer.read_answer(writer.write_answer(chunks, "m", "id", 0))
        again = writer.read_events()
        assert collect(again.feed(stream) + again.close()).choices[0].text == LETTERS
        assert collect(whole).choices[0].text == LETTERS
        for line in stream.split(b"\n"):
            if line.startswith(b"data: {"):
                json.loads(line[6:])


PARTIAL = '{"path": "a'
CUTS = [("length", "length"), ("content_filter", "content_filter"), ("stop_sequence", "stop"), ("other", "stop")]


@pytest.mark.parametrize(("finish", "openai"), CUTS)
@pytest.mark.parametrize("dialect", [MESSAGES, CHAT_COMPLETIONS, RESPONSES], ids=lambda dialect: dialect.name)
def test_an_answer_that_was_cut_says_so_and_is_no_error(dialect: Dialect, finish: Any, openai: str) -> None:
    chunks = [Chunk(id="a"), Chunk("Once"), Chunk(finish=finish), Chunk(usage=Usage(1, 2), is_last=True)]

    stream = dialect.write_events("m", "id", 0).write(chunks)
    reader = dialect.read_events()
    again = collect(reader.feed(stream) + reader.close()).choices[0]

    assert again.text == "Once"
    assert again.finish in (finish, openai)
    assert again.finish == collect(dialect.read_answer(dialect.write_answer(chunks, "m", "id", 0))).choices[0].finish


@pytest.mark.parametrize("dialect", [CHAT_COMPLETIONS, RESPONSES], ids=lambda dialect: dialect.name)
def test_a_refusal_is_told_as_one_where_there_is_a_word_for_it(dialect: Dialect) -> None:
    """Who asked for JSON would take it for a broken answer."""
    said = [Chunk("I will ", is_refusal=True), Chunk("not.", is_refusal=True), Chunk(finish="stop")]
    chunks = [Chunk(id="a"), *said, Chunk(usage=Usage(1, 2), is_last=True)]

    reader = dialect.read_events()
    streamed = collect(reader.feed(dialect.write_events("m", "id", 0).write(chunks)) + reader.close()).choices[0]
    whole = collect(dialect.read_answer(dialect.write_answer(chunks, "m", "id", 0))).choices[0]

    for answer in (streamed, whole):
        assert (answer.text, answer.is_refusal) == ("I will not.", True)


@pytest.mark.parametrize("dialect", [MESSAGES, CHAT_COMPLETIONS, RESPONSES], ids=lambda dialect: dialect.name)
def test_a_tool_call_that_was_cut_off_is_passed_on_as_far_as_it_went(dialect: Dialect) -> None:
    chunks = [
        Chunk(id="a"),
        Chunk(tool_call=ToolCallPiece(0, "c1", "f", PARTIAL)),
        Chunk(finish="length"),
        Chunk(usage=Usage(1, 2), is_last=True),
    ]

    reader = dialect.read_events()
    again = collect(reader.feed(dialect.write_events("m", "id", 0).write(chunks)) + reader.close()).choices[0]

    assert [(call.name, call.arguments) for call in again.tool_calls] == [("f", PARTIAL)]
    assert again.finish == "length"


@pytest.mark.parametrize(
    ("dialect", "start", "unit", "end"),
    [
        (CHAT_COMPLETIONS, b'{"choices":[', b"{}", b"]}"),
        (CHAT_COMPLETIONS, b'{"choices":[{"message":{"tool_calls":[', b'{"function":{}}', b"]}}]}"),
        (MESSAGES, b'{"type":"message","content":[', b'{"type":"tool_use"}', b"]}"),
        (RESPONSES, b'{"output":[', b'{"type":"message","content":[]}', b"]}"),
    ],
)
def test_an_answer_of_half_a_million_parts_is_none(dialect: Dialect, start: bytes, unit: bytes, end: bytes) -> None:
    with pytest.raises(ProviderBroke, match="more parts than any has"):
        dialect.read_answer(start + b",".join([unit] * 500_000) + end)


def test_arguments_without_an_end_of_a_call_without_an_id_take_linear_time() -> None:
    piece = {"index": 0, "function": {"arguments": "1" * 10_000 + "}"}}
    reader = CHAT_COMPLETIONS.read_events()
    data = event({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]})
    before = time.thread_time()

    for _ in range(2_000):
        reader.feed(data)

    assert time.thread_time() - before < 1


def call_of(choice: int, number: int, **call: Any) -> bytes:
    return event({"choices": [{"index": choice, "delta": {"tool_calls": [{"index": number, **call}]}}]})


def test_a_name_that_comes_with_each_piece_of_a_call_without_an_id_takes_linear_time() -> None:
    reader = CHAT_COMPLETIONS.read_events()
    reader.feed(call_of(0, 0, function={"name": "f", "arguments": '{"a":[' + "1," * 400_000 + "]}"}))
    piece = call_of(0, 0, function={"name": "f", "arguments": "}"})
    before = time.thread_time()

    for _ in range(1_000):
        reader.feed(piece)

    assert time.thread_time() - before < 1


def test_texts_of_custom_tools_are_closed_in_linear_time() -> None:
    reader = CHAT_COMPLETIONS.read_events()
    for number in range(4_000):
        reader.feed(call_of(0, number, id=f"c{number}", custom={"name": "f", "input": "x"}))
    end = event({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]})
    before = time.thread_time()

    for _ in range(4_000):
        reader.feed(end)

    assert time.thread_time() - before < 0.5


def test_calls_without_arguments_are_completed_in_linear_time() -> None:
    reader = CHAT_COMPLETIONS.read_events()
    for number in range(4_000):
        reader.feed(call_of(number, 0, id=f"c{number}", function={"name": "f"}))
    before = time.thread_time()

    chunks = reader.feed(event(b"[DONE]"))

    assert time.thread_time() - before < 0.5
    assert sum(chunk.tool_call is not None and chunk.tool_call.arguments == "{}" for chunk in chunks) == 4_000


def say_in_choice(number: int) -> Data:
    return {"choices": [{"index": number, "text": "x", "delta": {"content": "x"}}]}


@pytest.mark.parametrize("dialect", [CHAT_COMPLETIONS, TEXT_COMPLETIONS], ids=lambda dialect: dialect.name)
def test_a_stream_of_ever_new_choices_is_no_answer(dialect: Dialect) -> None:
    reader = dialect.read_events()

    reader.feed(b"".join(event(say_in_choice(number)) for number in range(20_000)))

    with pytest.raises(ProviderBroke, match="more parts than any has"):
        reader.feed(b"")


def test_a_stream_of_ever_new_calls_is_no_answer() -> None:
    reader = CHAT_COMPLETIONS.read_events()

    reader.feed(b"".join(call_of(0, number, id=f"c{number}", function={"name": "f"}) for number in range(20_000)))

    with pytest.raises(ProviderBroke, match="more parts than any has"):
        reader.feed(b"")


def test_thoughts_too_long_to_go_back_prove_nothing() -> None:
    reader = CHAT_COMPLETIONS.read_events()
    thought = {"reasoning_details": [{"type": "reasoning.text", "text": "x" * 100_000, "index": 0}]}
    for _ in range(30):
        reader.feed(event({"choices": [{"index": 0, "delta": thought}]}))

    chunks = reader.feed(call_of(0, 0, id="c", function={"name": "f", "arguments": "{}"}))

    assert [chunk.signature for chunk in chunks] == [""] * len(chunks)
    assert any(chunk.tool_call is not None for chunk in chunks)


def test_what_follows_the_text_of_a_custom_tool_is_not_kept() -> None:
    text = Unwrapping()
    told = text.feed('{"input":"abc')
    before = time.thread_time()

    told += "".join(text.feed('d"} e') for _ in range(50_000))

    assert (told, text.close()) == ("abcd", "")
    assert time.thread_time() - before < 1


def test_arguments_in_many_pieces_are_written_in_linear_time() -> None:
    writer = MESSAGES.write_events("m", "id", 1, None)
    writer.write([Chunk(tool_call=ToolCallPiece(0, "c", "f"))])
    before = time.thread_time()

    for _ in range(20_000):
        writer.write([Chunk(tool_call=ToolCallPiece(0, arguments="1" * 500))])

    assert time.thread_time() - before < 1


def read_a_request(numbers: bytes) -> None:
    CHAT_COMPLETIONS.read_request(b'{"model":"m","messages":[{"role":"user"}],"x":[%b]}' % numbers)


def read_an_answer(numbers: bytes) -> None:
    with pytest.raises(ProviderBroke):
        CHAT_COMPLETIONS.read_answer(b'{"choices":[],"usage":[%b]}' % numbers)


def write_a_call(numbers: bytes) -> None:
    call = ToolCall("c", "f", '{"a":[' + numbers.decode() + "]}")
    MESSAGES.write_request(ChatRequest(messages=(Message("assistant", (call,)),)), "m", stream=True)


@pytest.mark.parametrize("use", [read_a_request, read_an_answer, write_a_call])
@pytest.mark.parametrize("number", [b"1e308", b"2.2250738585072011e-308", b"8.5e-315"])
def test_numbers_near_the_largest_and_the_smallest_are_read_like_others(
    use: Callable[[bytes], None], number: bytes
) -> None:
    """The decoder's own way takes 12 µs for each of them, a hundred times as long as for others."""

    def seconds(number: bytes) -> float:
        numbers = b",".join([number] * 20_000)
        started = time.thread_time()
        use(numbers)
        return time.thread_time() - started

    assert min(seconds(number) for _ in range(3)) < 8 * min(seconds(b"12345.67890123") for _ in range(3))


@dialects
def test_a_number_beyond_all_is_no_json(dialect: Dialect) -> None:
    with pytest.raises(Invalid):
        dialect.read_request(b'{"model":"m","messages":[],"prompt":"x","input":"x","max_tokens":1,"y":1e309}')


def test_what_a_cache_gave_and_took_is_no_more_than_the_prompt() -> None:
    usage = {"prompt_tokens": 120, "completion_tokens": 3}
    usage |= {"prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 120}}

    chunks = read(CHAT_COMPLETIONS, *BEGIN["chat_completions"], {"choices": [], "usage": usage}, b"[DONE]")

    assert chunks[-1].usage == Usage(120, 3, cache_read_tokens=100, cache_write_tokens=20)


def test_a_response_asked_with_forty_thousand_items_is_read_in_linear_time() -> None:
    item = {"role": "user", "content": "x"}
    before = time.thread_time()

    chat, _ = RESPONSES.read_request(json.dumps({"model": "m", "input": [item] * 40_000}).encode())

    assert time.thread_time() - before < 1
    assert [len(message.parts) for message in chat.messages] == [40_000]


def test_brackets_that_an_answer_says_are_no_parts() -> None:
    said = '[{\\"a\\":[1]}]\\n' * 500_000

    chunks = CHAT_COMPLETIONS.read_answer(b'{"choices":[{"message":{"content":"%b"}}]}' % said.encode())

    assert len("".join(chunk.text for chunk in chunks)) == 12 * 500_000


@pytest.mark.parametrize(
    "words",
    [
        "length is 1 tokens (1 in the messages ",
        "too large: 1 ",
        "contains 1 tokens ",
        "exceeds the available a ",
        "inputs.",
    ],
)
def test_the_words_of_an_error_are_understood_at_once_however_many_they_are(words: str) -> None:
    said = words * (60_000 // len(words))
    before = time.thread_time()

    told = tell_too_long(str(provider_refused(400, said)))

    assert time.thread_time() - before < 0.25
    assert "prompt is too long" in told


def test_an_answer_of_nothing_but_thoughts_is_left_out_in_the_time_that_it_takes_to_read() -> None:
    def seconds(thoughts: int) -> float:
        thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
        turn = {"role": "assistant", "content": [thought] * thoughts}
        body = json.dumps({"model": "m", "max_tokens": 9, "messages": [turn]}).encode()
        started = time.process_time()
        MESSAGES.read_request(body)
        return time.process_time() - started

    assert seconds(16_000) < 20 * min(seconds(2_000) for _ in range(3))


def test_calls_without_end_are_told_in_the_time_that_they_take_to_read() -> None:
    """A server may begin a call in each event and end none."""

    def seconds(calls: int) -> float:
        writer = MessagesWriter("m", "id", 0)
        began = [Chunk(tool_call=ToolCallPiece(at, f"call_{at}", "f", "{")) for at in range(calls)]
        pieces = [Chunk(tool_call=ToolCallPiece(0, arguments="x")) for _ in range(calls)]
        started = time.process_time()
        writer.write([*began, *pieces, Chunk(is_last=True)])
        return time.process_time() - started

    assert min(seconds(8_000) for _ in range(3)) < 20 * min(seconds(1_000) for _ in range(3))
