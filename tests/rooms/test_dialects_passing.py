"""Requests and answers that pass in the dialect they came in: what is changed, what is seen, where it ends."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.anthropic_answers import messages_events, messages_whole
from tests.support.openai_answers import chat_events, chat_whole, responses_events, responses_whole
from tests.support.saying import Saying, event

from torana.chat import Chunk, Usage
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import Dialect
from torana.dialects.messages import MESSAGES
from torana.dialects.passing import MAX_HELD_EVENTS, PassingReader, pass_answer, pass_on, replace_model
from torana.dialects.responses import RESPONSES
from torana.errors import Invalid, ProviderBroke, ProviderError, ProviderRefused

DIALECTS: dict[str, tuple[Dialect, Any, Any]] = {
    "messages": (MESSAGES, messages_events, messages_whole),
    "chat_completions": (CHAT_COMPLETIONS, chat_events, chat_whole),
    "responses": (RESPONSES, responses_events, responses_whole),
}
WITH_USAGE = {"model": "m", "stream_options": {"include_usage": True}}
SAID = Saying(pieces=("Grüße, ", "世界 \n\n", '"error"'))


def read(reader: PassingReader, data: bytes, cuts: list[int]) -> list[Chunk]:
    """The chunks of `data`, fed in pieces that end at `cuts`."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    chunks: list[Chunk] = []
    for start, end in itertools.pairwise(places):
        chunks += reader.feed(data[start:end])
    return chunks + reader.close()


def raw(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.raw for chunk in chunks)


cuts = st.lists(st.integers(0, 10_000), max_size=30)


@pytest.mark.parametrize("name", DIALECTS)
@given(cuts=cuts)
def test_whole_events_pass_byte_for_byte_however_they_were_cut(name: str, cuts: list[int]) -> None:
    dialect, events, _ = DIALECTS[name]
    stream = b"".join(events(SAID, WITH_USAGE))

    chunks = read(PassingReader(dialect), stream, cuts)

    assert raw(chunks) == stream
    assert all(chunk.raw.endswith(b"\n\n") for chunk in chunks)
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage == Usage(input_tokens=25, output_tokens=7)


@pytest.mark.parametrize("name", DIALECTS)
@given(cuts=cuts)
def test_lines_may_end_in_crlf(name: str, cuts: list[int]) -> None:
    dialect, events, _ = DIALECTS[name]
    stream = b"".join(events(Saying(), WITH_USAGE)).replace(b"\n", b"\r\n")

    assert raw(read(PassingReader(dialect), stream, cuts)) == stream


@given(cuts=cuts)
def test_a_usage_that_nobody_asked_for_is_seen_and_kept_back(cuts: list[int]) -> None:
    events = chat_events(SAID, WITH_USAGE)
    assert b'"choices": []' in events[-2]

    chunks = read(PassingReader(CHAT_COMPLETIONS, hides_usage=True), b"".join(events), cuts)

    assert raw(chunks) == b"".join(events[:-2] + events[-1:])
    assert chunks[-1].usage == Usage(input_tokens=25, output_tokens=7)


@pytest.mark.parametrize("name", DIALECTS)
def test_nothing_passes_before_something_is_said(name: str) -> None:
    dialect, events, _ = DIALECTS[name]
    reader = PassingReader(dialect)
    silent = []
    for part in events(Saying(), WITH_USAGE):
        if chunks := reader.feed(part):
            assert raw(chunks) == b"".join(silent) + part
            assert b"Hello from " in part
            return
        silent.append(part)
    pytest.fail("nothing was ever passed")


def test_events_that_say_nothing_we_know_of_are_not_held_for_ever() -> None:
    reader = PassingReader(RESPONSES)
    event_of_theirs = event({"type": "response.new_thing"}, "response.new_thing")

    passed = [raw(reader.feed(event_of_theirs)) for _ in range(MAX_HELD_EVENTS)]

    assert passed[:-1] == [b""] * (MAX_HELD_EVENTS - 1)
    assert passed[-1] == event_of_theirs * MAX_HELD_EVENTS


def test_what_fails_before_anything_is_said_passes_nothing_however_much_comes_with_it() -> None:
    greeting = event({"id": "a", "choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})
    rest = event({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]}) * MAX_HELD_EVENTS

    with pytest.raises(ProviderBroke):
        PassingReader(CHAT_COMPLETIONS).feed(greeting + event({"choices": "none"}) + rest)


@pytest.mark.parametrize("name", DIALECTS)
def test_an_error_behind_the_end_spoils_no_answer(name: str) -> None:
    dialect, events, _ = DIALECTS[name]
    stream = b"".join(events(SAID, WITH_USAGE))
    reader = PassingReader(dialect)

    chunks = reader.feed(stream + ERRORS[name]) + reader.close()

    assert raw(chunks) == stream
    assert chunks[-1].is_last


ERRORS = {
    "messages": event({"type": "error", "error": {"type": "overloaded_error", "message": "secret"}}, "error"),
    "chat_completions": event({"error": {"message": "secret", "type": "server_error"}}),
    "responses": event({"type": "error", "code": "server_error", "message": "secret"}, "error"),
}


@pytest.mark.parametrize("name", DIALECTS)
@given(cuts=cuts)
def test_an_error_is_raised_behind_what_came_before_it_and_never_passed(name: str, cuts: list[int]) -> None:
    dialect, events, _ = DIALECTS[name]
    good = events(Saying(), WITH_USAGE)
    good = good[: next(at for at, part in enumerate(good) if b"Hello from " in part) + 1]
    stream = b"".join(good) + ERRORS[name]
    reader = PassingReader(dialect)
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    passed, failure = b"", None

    try:
        for start, end in itertools.pairwise(places):
            passed += raw(reader.feed(stream[start:end]))
        reader.close()
    except ProviderError as error:
        failure = error

    assert isinstance(failure, ProviderRefused)
    assert passed == b"".join(good)


@pytest.mark.parametrize("name", DIALECTS)
def test_an_error_as_the_first_event_is_raised_before_anything_passes(name: str) -> None:
    with pytest.raises(ProviderRefused):
        PassingReader(DIALECTS[name][0]).feed(ERRORS[name])


@pytest.mark.parametrize("name", ["messages", "responses"])
def test_an_error_in_one_read_with_events_that_say_nothing_is_raised_at_once(name: str) -> None:
    dialect, events, _ = DIALECTS[name]

    with pytest.raises(ProviderRefused):
        PassingReader(dialect).feed(events(Saying(), WITH_USAGE)[0] + ERRORS[name])


def test_a_response_that_failed_is_a_failure_also_where_it_does_not_tell_why() -> None:
    good = responses_events(Saying(), WITH_USAGE)[:-1]
    failed = event({"type": "response.failed", "response": {"status": "failed", "error": None}}, "response.failed")
    reader = PassingReader(RESPONSES)

    passed = raw(reader.feed(b"".join(good) + failed))

    assert passed == b"".join(good)
    with pytest.raises(ProviderRefused):
        reader.close()


@pytest.mark.parametrize("name", DIALECTS)
@given(cuts=cuts)
def test_a_mark_before_a_stream_is_not_passed(name: str, cuts: list[int]) -> None:
    """SDKs would not know the first event."""
    dialect, events, _ = DIALECTS[name]
    stream = b"".join(events(SAID, WITH_USAGE))

    assert raw(read(PassingReader(dialect), b"\xef\xbb\xbf" + stream, cuts)) == stream


@pytest.mark.parametrize("name", DIALECTS)
def test_what_follows_the_terminal_event_is_left_out(name: str) -> None:
    dialect, events, _ = DIALECTS[name]
    stream = b"".join(events(Saying(), WITH_USAGE))

    together = PassingReader(dialect).feed(stream + b"data: more\n\n")
    reader = PassingReader(dialect)
    reader.feed(stream)

    assert raw(together) == stream
    assert reader.feed(b"data: more\n\n") == []
    assert reader.close() == []


@pytest.mark.parametrize("name", DIALECTS)
def test_a_stream_without_its_terminal_event_is_broken(name: str) -> None:
    dialect, events, _ = DIALECTS[name]
    reader = PassingReader(dialect)
    reader.feed(b"".join(events(Saying(), WITH_USAGE)[:-1]))

    with pytest.raises(ProviderBroke):
        reader.close()


@pytest.mark.parametrize("name", DIALECTS)
def test_the_last_blank_line_may_be_missing(name: str) -> None:
    dialect, events, _ = DIALECTS[name]
    stream = b"".join(events(Saying(), WITH_USAGE))
    reader = PassingReader(dialect)

    chunks = reader.feed(stream[:-2])
    chunks += reader.close()

    assert raw(chunks) == stream
    assert chunks[-1].is_last


def test_an_event_without_end_is_broken_before_it_fills_the_memory() -> None:
    reader = PassingReader(MESSAGES)

    def flood() -> None:
        for _ in range(40):
            reader.feed(b"data: " + b"x" * 2**18)

    with pytest.raises(ProviderBroke):
        flood()


@pytest.mark.parametrize("name", DIALECTS)
def test_a_whole_answer_passes_as_it_came_and_its_usage_is_seen(name: str) -> None:
    dialect, _, whole = DIALECTS[name]
    body = json.dumps(whole(Saying(), {"model": "m"}), indent=1).encode()

    (chunk,) = pass_answer(dialect, body)

    assert (chunk.raw, chunk.is_last, chunk.finish) == (body, True, "stop")
    assert chunk.usage == Usage(input_tokens=25, output_tokens=7)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_whole_answer_with_letters_that_are_none_is_json_all_the_same(name: str) -> None:
    """In a member that nobody here reads; in a stream it is so as well."""
    dialect, _, whole = DIALECTS[name]
    body = json.dumps({**whole(Saying(), {"model": "m"}), "mark": "?"}).encode().replace(b'"?"', b'"\xff"')

    (chunk,) = pass_answer(dialect, body)

    assert json.loads(chunk.raw)["mark"] == "\ufffd"


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("body", [b"<html>", b"{", b"[]", b"{}"])
def test_a_whole_answer_that_is_none_is_broken(name: str, body: bytes) -> None:
    with pytest.raises(ProviderBroke):
        pass_answer(DIALECTS[name][0], body)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(members=st.dictionaries(st.text(), json_values, max_size=6), model=st.text(min_size=1))
def test_every_other_member_of_a_request_survives(members: dict[str, Any], model: str) -> None:
    sent = json.dumps({"model": "alias", **members} | {"model": "alias"}).encode()

    assert json.loads(replace_model(sent, model)) == {**members, "model": model}


def test_the_bytes_of_a_member_stay_as_they_were() -> None:
    sent = b'{ "model" : "a", "n": 1.50, "text": "\\u00e9\\/", "deep": {"b" : [ 1e3 ] } }'

    assert replace_model(sent, "b") == b'{"model":"b","n":1.50,"text":"\\u00e9\\/","deep":{"b" : [ 1e3 ] }}'


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a":', b'"text"', b"\xff", b'{"a":1}x', b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        replace_model(body, "m")


@pytest.mark.parametrize(
    ("options", "stream", "sent", "is_ours"),
    [
        (None, False, None, False),
        (None, True, {"include_usage": True}, True),
        ({"include_usage": True}, True, {"include_usage": True}, False),
        ({"include_usage": False, "x": 1}, True, {"include_usage": True, "x": 1}, True),
        ("nonsense", True, {"include_usage": True}, True),
    ],
)
def test_usage_is_asked_for_where_it_is_not(options: Any, stream: bool, sent: Any, is_ours: bool) -> None:
    asked = {"model": "a", "messages": []} | ({} if options is None else {"stream_options": options})

    body, hides_usage = pass_on(CHAT_COMPLETIONS, json.dumps(asked).encode(), "b", stream=stream)

    assert json.loads(body).get("stream_options") == sent
    assert hides_usage is is_ours
    assert b"stream_options" not in pass_on(MESSAGES, b'{"model":"a"}', "b", stream=True)[0]
