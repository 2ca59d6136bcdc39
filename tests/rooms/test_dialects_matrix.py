"""Any client, any model: what is asked in one dialect arrives in every other, and so do the answers.

A new dialect joins by its line in DIALECTS. REFUSES names what a dialect cannot be given at all.
"""

import msgspec
import pytest
from tests.golden.compare import read
from tests.rooms.dialect_words import collect, plain, plain_answer, without

from torana.chat import ChatRequest, Chunk, Document, Image, Message, Part, Text, Usage
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.converse import CONVERSE
from torana.dialects.dialect import Dialect
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.in_words import tell_in_turn
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.errors import Invalid

DIALECTS: list[Dialect] = [MESSAGES, CHAT_COMPLETIONS, RESPONSES, CONVERSE, GENERATE_CONTENT]
REFUSES: dict[str, tuple[str, ...]] = {
    "chat_completions": ("document.url",),
    "converse": ("document.url", "image.url"),
}
"""`document.url`, `image.url`: a document or an image by its address."""
IN_PATH = {"converse", "generate_content"}
"""Formats whose bodies tell neither the model nor whether the answer is to stream: the path does."""
TELLS_JSON_MODE = dict.fromkeys(("messages", "converse"), "Answer with one JSON object, and with nothing else.")
"""Formats without a member for it say it in words."""
COUNTS_NO_CACHE_WRITES = {"generate_content"}

pairs = pytest.mark.parametrize(
    ("served", "spoken"), [(a, b) for a in DIALECTS for b in DIALECTS], ids=lambda dialect: dialect.name
)
FAR = Document(url="https://example.com/far.pdf")


def words(name: str, *dialects: Dialect) -> ChatRequest:
    """What all of `dialects` can be given."""
    chat = msgspec.json.decode(read(f"{name}.json"), type=ChatRequest)
    if CONVERSE in dialects:
        chat = for_converse(chat)
    if GENERATE_CONTENT in dialects:
        # It has no place for the user, and no answer depends on it. For short answers it says not to think.
        chat = msgspec.structs.replace(chat, user="", max_tokens=max(chat.max_tokens or 0, 4096))
    # What only authors of prompts write, and one answer: the others are compared in tests of their own.
    return msgspec.structs.replace(chat, fill_in=None, extra={}, choices=1)


def for_converse(chat: ChatRequest) -> ChatRequest:
    """Without pictures by their address, and with titles of the letters that it takes."""

    def fit(part: Part) -> Part:
        if isinstance(part, Document):
            return msgspec.structs.replace(part, title=part.title.replace(".", " "))
        return part

    messages = tuple(
        Message(message.role, tuple(fit(part) for part in message.parts if not (isinstance(part, Image) and part.url)))
        for message in chat.messages
    )
    return msgspec.structs.replace(chat, messages=messages)


def cross(dialect: Dialect, chat: ChatRequest, model: str = "the-model") -> tuple[ChatRequest, tuple[str, ...]]:
    """The same request as a reader of `dialect` understands it, and what that lost."""
    lost = dialect.losses(chat, model)
    again, name = dialect.read_request(dialect.write_request(chat, model, stream=True))
    assert name == ("" if dialect.name in IN_PATH else model)
    assert again.stream
    return again, lost


def expected(chat: ChatRequest, dialect: Dialect, lost: tuple[str, ...]) -> dict[str, object]:
    kept = without(chat, lost)
    if kept.wants_json and dialect.name in TELLS_JSON_MODE:
        told = Message("system", (Text(TELLS_JSON_MODE[dialect.name]),))
        head = sum(message.role == "system" for message in tell_in_turn(kept).messages)
        messages = (*kept.messages[:head], told, *kept.messages[head:])
        kept = msgspec.structs.replace(kept, wants_json=False, messages=messages)
    return plain(kept)


@pytest.mark.parametrize("name", ["full", "thinking"])
@pairs
def test_a_request_crosses_and_says_the_same(served: Dialect, spoken: Dialect, name: str) -> None:
    asked, lost_by_client = cross(served, words(name, served, spoken))
    assert plain(asked) == expected(words(name, served, spoken), served, lost_by_client)

    sent, lost = cross(spoken, asked)

    assert plain(sent) == expected(asked, spoken, lost)
    assert not sent.unspoken


@pairs
def test_a_document_by_its_address_crosses_or_is_refused(served: Dialect, spoken: Dialect) -> None:
    chat = ChatRequest(messages=(Message("user", (FAR, Text("What is it?"))),), max_tokens=4096)
    if "document.url" in REFUSES.get(spoken.name, ()):
        with pytest.raises(Invalid, match="request_invalid"):
            spoken.write_request(chat, "m", stream=True)
        return

    asked, lost_by_client = (chat, ()) if "document.url" in REFUSES.get(served.name, ()) else cross(served, chat)
    sent, lost = cross(spoken, asked)

    assert plain(sent) == plain(without(chat, (*lost_by_client, *lost)))


@pytest.mark.parametrize("by", ["whole", "stream", "letters"])
@pairs
def test_an_answer_crosses_and_says_the_same(served: Dialect, spoken: Dialect, by: str) -> None:
    said = msgspec.json.decode(read("answer.chunks.json"), type=list[Chunk])

    chunks = read_back(spoken, said, by)
    shown = read_back(served, chunks, by)

    assert plain_answer(collect(shown)) == plain_answer(collect(said))
    assert shown[-1].is_last
    usage = collect(said).usage
    if CONVERSE in (served, spoken):
        # It does not tell thinking from the rest of the output.
        usage = msgspec.structs.replace(usage, reasoning_tokens=0)
    if {served.name, spoken.name} & COUNTS_NO_CACHE_WRITES:
        usage = msgspec.structs.replace(usage, cache_write_tokens=0)
    assert shown[-1].usage == usage


@pairs
def test_a_proof_of_a_thought_comes_home(served: Dialect, spoken: Dialect) -> None:
    """The client's dialect carries it to the client and back to the one who gave it."""
    if served.name not in CARRIES_PROOFS:
        pytest.skip("no place for it in this format")
    said = [
        Chunk(id="a"),
        Chunk(reasoning="Hm.", dialect=spoken.name),
        Chunk(signature="c2ln", dialect=spoken.name),
        Chunk(text="Yes."),
        Chunk(finish="stop", usage=Usage(1, 2), is_last=True),
    ]

    shown = collect(read_back(served, said, "stream")).choices[0].parts
    body = served.write_request(
        ChatRequest(messages=(Message("user", (Text("?"),)), Message("assistant", tuple(shown))), max_tokens=99),
        "m",
        stream=False,
    )

    thought = served.read_request(body)[0].messages[-1].parts[0]
    assert (getattr(thought, "signature", ""), getattr(thought, "dialect", "")) == ("c2ln", spoken.name)


CARRIES_PROOFS = {"messages", "responses", "generate_content"}


def read_back(dialect: Dialect, chunks: list[Chunk], by: str) -> list[Chunk]:
    """The answer written in `dialect` and read again."""
    if by == "whole":
        return dialect.read_answer(dialect.write_answer(chunks, "m", "id-1", 1_700_000_000))
    stream = dialect.write_events("m", "id-1", 1_700_000_000).write(chunks)
    size = 1 if by == "letters" else len(stream)
    reader = dialect.read_events()
    return [
        chunk for at in range(0, len(stream), size) for chunk in reader.feed(stream[at : at + size])
    ] + reader.close()
