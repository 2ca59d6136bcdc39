"""Any request: read and written again it is unchanged, and into every other dialect it crosses or is refused."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torana.chat import Chunk, Thought, ToolCallPiece, Usage
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.collecting import Collected, collect
from torana.dialects.converse import CONVERSE
from torana.dialects.dialect import Dialect
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES
from torana.dialects.text_completions import TEXT_COMPLETIONS
from torana.errors import Invalid

SERVED = [MESSAGES, CHAT_COMPLETIONS, RESPONSES]
SPOKEN = [*SERVED, TEXT_COMPLETIONS, GENERATE_CONTENT, CONVERSE]
MODELS = ["m", "claude-sonnet-4-6", "claude-opus-5-5", "gpt-5.6-sol", "gpt-4o", "gemini-2.5-pro", "gemini-3-pro"]

fixed, pick = st.fixed_dictionaries, st.sampled_from
texts = st.text("aé🙂\n \u0000\u2028", max_size=4)
ids = pick(["c1", "c2", "c:3", ""])
junk = st.none() | st.booleans() | st.integers(-2, 9) | texts
marks = pick([{}, {"cache_control": {"type": "ephemeral"}}, {"prompt_cache_breakpoint": {"mode": "explicit"}}])
urls = pick(["https://example.com/a.png", "data:image/png;base64,aQ==", "data:,x", ""])
schemas = pick([{}, {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}])
efforts = pick(["none", "minimal", "low", "high", "xhigh", "max", "tomorrow"])


def rows(*kinds: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.one_of(*kinds), max_size=most)


def one(kind: str, **members: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda told, more: {"type": kind, **told, **more},
        fixed({name: each if isinstance(each, st.SearchStrategy) else st.just(each) for name, each in members.items()}),
        marks,
    )


def some(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return fixed({}, optional=members)


arguments = pick(["", "{}", '{"a":1}', '{"a":', "[1]"])
source = st.one_of(
    fixed({"type": st.just("base64"), "media_type": st.just("image/png"), "data": st.just("aQ==")}),
    fixed({"type": st.just("url"), "url": urls}),
    fixed({"type": st.just("text"), "media_type": st.just("text/plain"), "data": texts}),
    fixed({"type": st.just("file"), "file_id": ids}),
)
blocks = rows(
    one("text", text=texts),
    one("image", source=source),
    one("document", source=source, title=texts),
    one("thinking", thinking=texts, signature=pick(["", "c2ln", "responses:x", "converse*:y"])),
    one("redacted_thinking", data=ids),
    one("tool_use", id=ids, name=ids, input=schemas),
    one(
        "tool_result",
        tool_use_id=ids,
        content=rows(one("text", text=texts), one("image", source=source)),
        is_error=st.booleans(),
    ),
    one("tool_result", tool_use_id=ids),
    one("server_tool_use", id=ids, name=ids, input=schemas),
    one("tomorrow", x=junk),
)
sampling = {"temperature": st.floats(0, 2), "top_p": st.floats(0, 1), "top_k": st.integers(0, 9), "tomorrow": junk}
messages_bodies = st.builds(
    lambda base, more: {"model": "m", "max_tokens": 2000, **base, **more},
    fixed({"messages": rows(fixed({"role": pick(["user", "assistant", "system"]), "content": texts | blocks}))}),
    some(
        system=texts | rows(one("text", text=texts)),
        tools=rows(
            fixed(
                {"name": ids, "input_schema": schemas},
                optional={"strict": st.booleans(), "type": pick(["custom", "web_search_1"])},
            )
        ),
        tool_choice=pick(
            [
                {"type": "auto"},
                {"type": "any"},
                {"type": "tool", "name": "c1"},
                {"type": "auto", "disable_parallel_tool_use": True},
            ]
        ),
        thinking=pick(
            [
                {"type": "disabled"},
                {"type": "adaptive"},
                {"type": "enabled", "budget_tokens": 1024},
                {"type": "between_tools"},
            ]
        ),
        output_config=some(
            effort=efforts, format=st.builds(lambda schema: {"type": "json_schema", "schema": schema}, schemas)
        ),
        metadata=some(user_id=texts, more=junk),
        stop_sequences=st.lists(texts, max_size=2),
        stream=st.booleans(),
        **sampling,
    ),
)
content = rows(
    one("text", text=texts),
    one("refusal", refusal=texts),
    one("image_url", image_url=fixed({"url": urls})),
    one("file", file=some(file_data=urls, filename=texts, file_id=ids)),
    one("input_audio", input_audio=st.just({"data": "", "format": "wav"})),
)
calls = rows(
    st.builds(
        lambda call_id, name, said: {"id": call_id, "type": "function", "function": {"name": name, "arguments": said}},
        ids,
        ids,
        arguments,
    ),
    st.builds(lambda call_id: {"id": call_id, "type": "custom", "custom": {"name": "p", "input": ""}}, ids),
)
completions_bodies = st.builds(
    lambda base, more: {"model": "m", **base, **more},
    fixed(
        {
            "messages": rows(
                fixed({"role": pick(["user", "system", "developer"]), "content": texts | content}),
                fixed(
                    {"role": st.just("assistant")},
                    optional={"content": st.none() | texts, "tool_calls": calls, "reasoning_content": texts},
                ),
                fixed({"role": st.just("tool"), "tool_call_id": ids, "content": texts | content}),
            )
        }
    ),
    some(
        max_tokens=st.integers(1, 9),
        max_completion_tokens=st.integers(1, 9),
        n=st.integers(1, 2),
        stop=texts | st.lists(texts, max_size=2),
        tools=rows(
            st.builds(
                lambda name, schema: {"type": "function", "function": {"name": name, "parameters": schema}},
                ids,
                schemas,
            ),
            st.just({"type": "custom", "custom": {"name": "p"}}),
        ),
        tool_choice=pick(
            [
                "auto",
                "none",
                "required",
                {"type": "function", "function": {"name": "c1"}},
                {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
            ]
        ),
        parallel_tool_calls=st.booleans(),
        response_format=pick(
            [
                {"type": "text"},
                {"type": "json_object"},
                {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": True}},
            ]
        ),
        reasoning_effort=efforts,
        user=texts,
        stream=st.booleans(),
        stream_options=some(include_usage=st.booleans()),
        **sampling,
    ),
)
inputs = rows(
    one("input_text", text=texts),
    one("output_text", text=texts),
    one("input_image", image_url=urls),
    one("input_file", file_data=urls, filename=texts),
    one("input_file", file_url=urls),
    one("input_audio", data=ids),
)
responses_bodies = st.builds(
    lambda base, more: {"model": "m", **base, **more},
    fixed(
        {
            "input": texts
            | rows(
                fixed({"role": pick(["user", "assistant", "system", "developer"]), "content": texts | inputs}),
                one("function_call", call_id=ids, name=ids, arguments=arguments),
                one("function_call_output", call_id=ids, output=texts | inputs),
                one(
                    "reasoning",
                    id=ids,
                    summary=rows(one("summary_text", text=texts), most=2),
                    encrypted_content=st.none() | ids,
                ),
                one("web_search_call", id=ids),
                one("item_reference", id=ids),
                most=5,
            )
        }
    ),
    some(
        instructions=texts,
        max_output_tokens=st.integers(1, 99),
        store=st.booleans(),
        include=st.lists(ids, max_size=1),
        user=texts,
        stream=st.booleans(),
        tools=rows(
            st.builds(lambda name, schema: {"type": "function", "name": name, "parameters": schema}, ids, schemas),
            st.just({"type": "web_search"}),
        ),
        tool_choice=pick(["auto", "none", "required", {"type": "function", "name": "c1"}, {"type": "web_search"}]),
        text=some(
            format=pick(
                [{"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "name": "a", "schema": {}}]
            ),
            verbosity=st.just("low"),
        ),
        reasoning=some(effort=efforts, summary=st.just("auto")),
        parallel_tool_calls=st.booleans(),
        truncation=st.just("auto"),
        temperature=st.floats(0, 2),
    ),
)
BODIES = [(MESSAGES, messages_bodies), (CHAT_COMPLETIONS, completions_bodies), (RESPONSES, responses_bodies)]
of_all = pytest.mark.parametrize(("dialect", "bodies"), BODIES, ids=[dialect.name for dialect, _ in BODIES])
often = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@of_all
@often
@given(data=st.data())
def test_any_request_that_is_read_and_written_again_is_unchanged(
    dialect: Dialect, bodies: st.SearchStrategy[dict[str, Any]], data: st.DataObject
) -> None:
    body = data.draw(bodies)

    chat, model = dialect.read_request(json.dumps(body).encode())

    written = json.loads(dialect.write_request(chat, model, stream=chat.stream))
    assert shown(written) == shown(body)


def shown(body: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing, and without the one thing that is added: streams tell their usage."""
    return {name: value for name, value in body.items() if name not in ("stream", "stream_options")}


@of_all
@often
@given(data=st.data())
def test_any_request_crosses_or_is_refused_and_losses_say_as_writing_does(
    dialect: Dialect, bodies: st.SearchStrategy[dict[str, Any]], data: st.DataObject
) -> None:
    chat, _ = dialect.read_request(json.dumps(data.draw(bodies)).encode())
    model = data.draw(pick(MODELS))

    for target in SPOKEN:
        try:
            body = target.write_request(chat, model, stream=True)
        except Invalid:
            with pytest.raises(Invalid):
                target.losses(chat, model)
            continue
        lost = target.losses(chat, model)
        assert list(lost) == sorted(set(lost))
        assert isinstance(json.loads(body), dict)
        if target in SERVED:
            target.read_request(body)


letters = st.text("aé🙂\n \u0000", min_size=1, max_size=3)
pieces = st.one_of(
    letters.map(lambda text: Chunk(text)),
    letters.map(lambda text: Chunk(reasoning=text, dialect="messages")),
    st.just(Chunk(signature="c2ln", dialect="messages")),
    st.just(Chunk(redacted="c2VhbGVk", dialect="messages")),
    st.integers(0, 2).map(lambda at: Chunk(tool_call=ToolCallPiece(at, f"c{at}", f"f{at}"))),
    st.integers(0, 2).map(lambda at: Chunk(tool_call=ToolCallPiece(at, arguments="1"))),
    st.just(Chunk(usage=Usage(3, 1))),
)
finishes = pick(["stop", "length", "tool_calls", "content_filter"])


@pytest.mark.parametrize("dialect", SERVED, ids=[dialect.name for dialect in SERVED])
@settings(max_examples=60, deadline=None)
@given(said=st.lists(pieces, max_size=12), finish=finishes, size=st.integers(1, 400))
def test_any_answer_is_told_and_understood_again(dialect: Dialect, said: list[Chunk], finish: Any, size: int) -> None:
    chunks = [Chunk(id="a", model="m"), *named(said), Chunk(finish=finish), Chunk(usage=Usage(9, 7), is_last=True)]
    writer, reader = dialect.write_events("m", "id-1", 0), dialect.read_events()

    stream = b"".join(writer.write([chunk]) for chunk in chunks)
    again = [chunk for at in range(0, len(stream), size) for chunk in reader.feed(stream[at : at + size])]
    again += reader.close()

    wanted, streamed = collect(chunks), collect(again)
    whole = collect(dialect.read_answer(dialect.write_answer(chunks, "m", "id-1", 0)))
    for found in (streamed, whole):
        assert found.choices[0].text == wanted.choices[0].text
        assert found.choices[0].reasoning == wanted.choices[0].reasoning
        calls = [(call.id, call.name) for call in found.choices[0].tool_calls]
        assert calls == [(call.id, call.name) for call in wanted.choices[0].tool_calls]
        assert (found.usage.input_tokens, found.usage.output_tokens) == (9, 7)
    assert [part.signature for part in proofs(streamed)] == [part.signature for part in proofs(whole)]
    assert [call.arguments for call in streamed.choices[0].tool_calls] == [
        call.arguments for call in wanted.choices[0].tool_calls
    ]


@settings(max_examples=300, deadline=None)
@given(said=st.lists(pieces, max_size=16))
def test_a_block_that_is_closed_takes_no_more_whatever_a_server_mixes(said: list[Chunk]) -> None:
    """Claude Code runs a call when its block ends."""
    stream = MESSAGES.write_events("m", "id-1", 0).write([*sound(named(said)), Chunk(is_last=True)])

    rows = [json.loads(line[6:]) for line in stream.decode().split("\n") if line.startswith("data: ")]
    is_open: list[int] = []
    for row in rows:
        if row["type"] == "content_block_start":
            assert is_open == []
            is_open = [row["index"]]
        elif "index" in row:
            assert is_open == [row["index"]]
            is_open = [] if row["type"] == "content_block_stop" else is_open
    assert is_open == []


def sound(said: list[Chunk]) -> list[Chunk]:
    """The pieces of each call make up an object, as far as they go."""
    rest = {at: ['{"a":', "[", "1", "]}"] for at in range(3)}
    told = []
    for chunk in said:
        piece = chunk.tool_call
        if piece is None or piece.name:
            told.append(chunk)
        elif rest[piece.position]:
            told.append(Chunk(tool_call=ToolCallPiece(piece.position, arguments=rest[piece.position].pop(0))))
    return told


def named(said: list[Chunk]) -> list[Chunk]:
    """A call's first piece names it, and no piece comes before."""
    known: set[int] = set()
    told = []
    for chunk in said:
        if piece := chunk.tool_call:
            is_new = piece.position not in known
            if is_new != bool(piece.name):
                continue
            known.add(piece.position)
        told.append(chunk)
    return told


def proofs(collected: Collected) -> list[Thought]:
    return [part for part in collected.choices[0].parts if isinstance(part, Thought) and part.signature]
