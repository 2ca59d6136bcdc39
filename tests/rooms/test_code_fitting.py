"""Code cut by count: whatever the text, the request fits, and what stands at the cursor stays (contract 6.5)."""

import asyncio

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support.tokenizers import WORDS, write_pieces_tokenizer, write_tokenizer

from torana.chat import ChatRequest, Message, Text
from torana.code.fitting import Room, fit_request
from torana.code.orders import Attachment, Cursor
from torana.code.window import Window, keep_end, keep_start
from torana.vocabulary import MOST_WAITING, CountingThread, NotCounted, TokenRuler, Vocabulary, read_vocabulary

PIECES = st.lists(st.sampled_from([*WORDS.split(" "), "§", "𝄞", "\n", "    ", "0x7f", "naïve\n"]), max_size=300)
CODE = PIECES.map("".join)
OUTPUT = 20


@pytest.fixture(scope="session", params=[write_tokenizer, write_pieces_tokenizer])
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    request.param(path)
    return read_vocabulary(path)


@pytest.fixture(scope="session")
def counting() -> CountingThread:
    return CountingThread()


def instruct(window: Window) -> ChatRequest:
    text = f"{window.context}\n{window.prefix}<cursor>{window.suffix}"
    return ChatRequest(messages=(Message("system", (Text("Complete."),)), Message("user", (Text(text),))))


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(CODE, CODE, CODE, st.integers(100, 400))
def test_the_request_fits_and_the_cursors_neighbourhood_stays(
    vocabulary: Vocabulary, counting: CountingThread, prefix: str, suffix: str, attached: str, limit: int
) -> None:
    cursor = Cursor(prefix=prefix, suffix=suffix, context=(Attachment("file", "f", attached),))
    room = Room(input_tokens=limit, vocabulary=vocabulary, counting=counting)

    window, chat = asyncio.run(fit_request(cursor, room, OUTPUT, instruct))

    assert sum(vocabulary.count(message.text) for message in chat.messages) <= limit - OUTPUT
    assert prefix.endswith(window.prefix)
    assert suffix.startswith(window.suffix)
    assert attached.startswith(window.context)
    assert not window.context or window.prefix == prefix
    assert window.prefix or not prefix.rpartition("\n")[2]


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(CODE, st.integers(-2, 50))
@example("def x", -1)
def test_a_piece_is_whole_letters_of_either_end(vocabulary: Vocabulary, text: str, limit: int) -> None:
    ruler = TokenRuler(vocabulary)

    end, start = keep_end(text, limit, ruler), keep_start(text, limit, ruler)

    assert text.endswith(end)
    assert text.startswith(start)
    # What is cut in the middle of a word may be a few tokens more.
    assert max(ruler.size(end), ruler.size(start)) <= max(limit, 0) + 5


async def test_instructions_that_are_too_long_alone_are_not_rendered_again_and_again(counting: CountingThread) -> None:
    rendered: list[Window] = []

    def instruct_at_length(window: Window) -> ChatRequest:
        rendered.append(window)
        return ChatRequest(messages=(Message("user", (Text("Complete. " * 1_000 + window.prefix),)),))

    room = Room(input_tokens=1_000, counting=counting)
    window, _ = await fit_request(Cursor(prefix="x = 1\n" * 1_000), room, OUTPUT, instruct_at_length)

    assert window.prefix == ""
    assert len(rendered) == 2


async def test_texts_far_too_long_are_cut_before_they_are_counted(vocabulary: Vocabulary) -> None:
    class Counted(Vocabulary):
        chars = 0

        def starts(self, text: str) -> list[int]:
            self.chars += len(text)
            return list(vocabulary.starts(text))

    counted = Counted(None)

    assert TokenRuler(counted).holds("word " * 1_000_000, 10) is False
    keep_start("word " * 1_000_000, 10, TokenRuler(counted))

    assert 0 < counted.chars <= 10 * TokenRuler.WIDEST_CHARS


async def test_a_tokenizer_that_fails_leaves_it_to_the_estimate(counting: CountingThread) -> None:
    class Panic(BaseException):
        """As the library's own, which is no Exception."""

    class Failing(Vocabulary):
        def count(self, text: str) -> int:
            raise Panic

    cursor, room = Cursor(prefix=WORDS * 100), {"input_tokens": 200, "counting": counting}

    window, _ = await fit_request(cursor, Room(vocabulary=Failing(None), **room), OUTPUT, instruct)

    assert (window, _) == await fit_request(cursor, Room(**room), OUTPUT, instruct)


async def test_where_too_many_wait_nobody_counts(vocabulary: Vocabulary) -> None:
    counting, begun, go_on = CountingThread(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()

    waiting = [asyncio.ensure_future(counting.run(hold)) for _ in range(MOST_WAITING)]
    await begun.wait()

    with pytest.raises(NotCounted):
        await counting.run(len, "")
    cursor = Cursor(prefix=WORDS * 100)
    room = Room(input_tokens=200, vocabulary=vocabulary, counting=counting)
    window, _ = await fit_request(cursor, room, OUTPUT, instruct)  # by the estimate

    assert window.prefix
    go_on.set()
    await asyncio.gather(*waiting)
    assert await counting.run(len, "four") == 4
