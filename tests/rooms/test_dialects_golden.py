"""Golden files: one request and one answer in our words beside their translation into every dialect."""

import json
from collections.abc import Iterator
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.compare import WRITTEN, assert_golden, assert_golden_bytes, assert_golden_words, read

from torana.chat import ChatRequest, Chunk
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import Dialect, EventReader
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.dialects.text_completions import TEXT_COMPLETIONS

DIALECTS = [MESSAGES, CHAT_COMPLETIONS, TEXT_COMPLETIONS, RESPONSES]
STREAMS = [
    (MESSAGES, "messages/tools"),
    (MESSAGES, "messages/thinking"),
    (CHAT_COMPLETIONS, "chat_completions/tools"),
    (CHAT_COMPLETIONS, "chat_completions/choices"),
    (TEXT_COMPLETIONS, "text_completions/plain"),
    (GENERATE_CONTENT, "generate_content/tools"),
    (GENERATE_CONTENT, "generate_content/choices"),
    (GENERATE_CONTENT, "generate_content/blocked"),
    (RESPONSES, "responses/tools"),
    (RESPONSES, "responses/cut"),
    (RESPONSES, "responses/custom"),
    (CHAT_COMPLETIONS, "chat_completions/custom"),
]
ANSWERS = [
    (MESSAGES, "messages/tools"),
    (CHAT_COMPLETIONS, "chat_completions/tools"),
    (TEXT_COMPLETIONS, "text_completions/plain"),
    (GENERATE_CONTENT, "generate_content/tools"),
    (RESPONSES, "responses/tools"),
    (RESPONSES, "responses/custom"),
    (CHAT_COMPLETIONS, "chat_completions/custom"),
]


def read_stream(reader: EventReader, parts: Iterator[bytes]) -> list[Chunk]:
    return [chunk for part in parts for chunk in reader.feed(part)] + reader.close()


def split(stream: bytes, size: int) -> Iterator[bytes]:
    return (stream[at : at + size] for at in range(0, len(stream), size))


def read_chunks(name: str) -> list[Chunk]:
    return msgspec.json.decode(read(name), type=list[Chunk])


@pytest.mark.parametrize("name", ["full", "thinking"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_request_is_written_as_in_the_golden_file(dialect: Dialect, name: str) -> None:
    chat = msgspec.json.decode(read(f"{name}.json"), type=ChatRequest)
    if dialect is TEXT_COMPLETIONS and name == "thinking":
        chat = msgspec.structs.replace(chat, tools=(), messages=chat.messages[:1])

    body = dialect.write_request(chat, "the-model", stream=True)

    assert_golden(f"{dialect.name}/{name}.request.json", json.loads(body))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_clients_request_is_read_as_in_the_golden_file(dialect: Dialect) -> None:
    chat, model = dialect.read_request(read(f"{dialect.name}/client.request.json"))

    assert model == json.loads(read(f"{dialect.name}/client.request.json"))["model"]
    assert_golden_words(f"{dialect.name}/client.words.json", chat, ChatRequest)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_request_that_is_read_and_written_again_is_unchanged(dialect: Dialect) -> None:
    for name in ("client", "full", "thinking"):
        body = read(f"{dialect.name}/{name}.request.json")
        chat, model = dialect.read_request(body)

        assert json.loads(dialect.write_request(chat, model, stream=chat.stream)) == json.loads(body)


@pytest.mark.parametrize(("dialect", "name"), STREAMS)
def test_a_stream_is_read_as_in_the_golden_file(dialect: Dialect, name: str) -> None:
    chunks = read_stream(dialect.read_events(), iter([read(f"{name}.sse")]))

    assert_golden_words(f"{name}.chunks.json", chunks, list[Chunk])


@pytest.mark.parametrize(("dialect", "name"), STREAMS)
def test_a_stream_in_pieces_of_any_size_gives_the_same_chunks(dialect: Dialect, name: str) -> None:
    stream = read(f"{name}.sse")

    expected = read_stream(dialect.read_events(), iter([stream]))

    for size in range(1, len(stream)):
        assert read_stream(dialect.read_events(), split(stream, size)) == expected


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.floats(0, 1), max_size=12))
@pytest.mark.parametrize(("dialect", "name"), STREAMS)
def test_a_stream_cut_at_random_gives_the_same_chunks(dialect: Dialect, name: str, cuts: list[float]) -> None:
    stream = read(f"{name}.sse")
    places = [0, *sorted(int(cut * len(stream)) for cut in cuts), len(stream)]

    parts = [stream[start:end] for start, end in pairwise(places)]

    assert read_stream(dialect.read_events(), iter(parts)) == read_chunks(f"{name}.chunks.json")


@pytest.mark.parametrize(("dialect", "name"), ANSWERS)
def test_an_answer_is_read_as_in_the_golden_file(dialect: Dialect, name: str) -> None:
    chunks = dialect.read_answer(read(f"{name}.answer.json"))

    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert_golden_words(f"{name}.answer.chunks.json", chunks, list[Chunk])


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_chunks_are_written_as_in_the_golden_files(dialect: Dialect, name: str) -> None:
    chunks = read_chunks(f"{name}.chunks.json")

    stream = dialect.write_events("the-model", "id-1", 1_700_000_000).write(chunks)
    answer = dialect.write_answer(chunks, "the-model", "id-1", 1_700_000_000)

    assert_golden_bytes(f"{dialect.name}/{name}.written.sse", stream)
    assert_golden(f"{dialect.name}/{name}.written.json", json.loads(answer))


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_chunks_are_written_the_same_one_by_one(dialect: Dialect, name: str) -> None:
    writer = dialect.write_events("the-model", "id-1", 1_700_000_000)

    stream = b"".join(writer.write([chunk]) for chunk in read_chunks(f"{name}.chunks.json"))

    assert stream == read(f"{dialect.name}/{name}.written.sse")


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_what_we_write_we_read_again(dialect: Dialect) -> None:
    chunks = read_chunks("answer.chunks.json")
    stream = dialect.write_events("the-model", "id-1", 1_700_000_000).write(chunks)

    again = read_stream(dialect.read_events(), iter([stream]))

    assert "".join(chunk.text for chunk in again) == "".join(chunk.text for chunk in chunks)
    assert again[-1].is_last
    assert again[-1].usage is not None
    assert (again[-1].usage.input_tokens, again[-1].usage.output_tokens) == (120, 34)
