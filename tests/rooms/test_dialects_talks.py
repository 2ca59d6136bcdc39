"""A client's conversation with one model after another: what each answered goes into the next request, as SDKs do it.

Whatever was said, every vendor receives what keeps to its rules, and each proof of a thought reaches the vendor that
gave it, and nobody else.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rooms.test_dialects_rules import (
    Body,
    check_chat_completions,
    check_converse,
    check_generate_content,
    check_messages,
    check_responses,
)

from torana.chat import Chunk, ToolCallPiece, Usage
from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.converse import CONVERSE
from torana.dialects.dialect import Dialect, ServedDialect
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.dialects.lengths import OwnNames, fit_lengths
from torana.dialects.messages import MESSAGES
from torana.dialects.responses import RESPONSES

SERVED: list[ServedDialect] = [MESSAGES, CHAT_COMPLETIONS, RESPONSES]
CHECKS: dict[str, tuple[Dialect, Callable[[Body], None]]] = {
    "claude-sonnet-4-6": (MESSAGES, check_messages),
    "claude-haiku-4-5": (MESSAGES, check_messages),
    "gpt-4o": (CHAT_COMPLETIONS, check_chat_completions),
    "qwen3": (CHAT_COMPLETIONS, check_chat_completions),
    "gpt-5.4": (RESPONSES, check_responses),
    "gemini-2.5-flash": (GENERATE_CONTENT, check_generate_content),
    "gemini-3.8-flash": (GENERATE_CONTENT, check_generate_content),
    "global.anthropic.claude-haiku-4-5-20251001-v1:0": (CONVERSE, check_converse),
}
PROVERS = {"messages": "messages", "converse": "messages", "responses": "responses"}
"""Dialect → whose proofs its thoughts carry. Google's stand on calls, and chat completions have none."""
TOOLS = ("read", "mcp__server__do-it", "t" * 70, "21st_magic", "files.read")
SCHEMA = {"type": "object", "properties": {"p": {"type": "string"}}}

texts = st.sampled_from(["", " ", "hi", "größe 😀", "a\n\nb\n"])
calls = st.tuples(st.sampled_from(TOOLS), st.sampled_from(["{}", "", '{"p":"ü"}', '{"p":']))
said = st.one_of(
    st.tuples(st.just("text"), texts),
    st.tuples(st.just("refusal"), st.just("I will not.")),
    st.tuples(st.just("thought"), texts),
    st.tuples(st.just("sealed"), texts),
    calls,
    calls,
)
turns = st.lists(
    st.tuples(
        st.sampled_from(sorted(CHECKS)),
        st.lists(said, max_size=5),
        st.permutations(range(5)),
        st.sampled_from(["", "The user waits.", "Go on."]),
    ),
    min_size=1,
    max_size=5,
)


def answer_of(parts: list[tuple[str, str]], vendor: str, number: int) -> tuple[list[Chunk], list[str]]:
    """An answer in our words, and the proofs in it that are wanted back: those of thoughts that something follows."""
    prover = PROVERS.get(vendor, "")
    chunks = [Chunk(id=f"a{number}", model="m")]
    proofs: list[str] = []
    waiting: list[str] = []
    for at, (kind, text) in enumerate(parts):
        proof = f"cHJvb2Y{number}x{at}"
        if kind == "thought":
            chunks.append(Chunk(reasoning=text, signature=proof if prover else "", dialect=prover or vendor))
            waiting += [proof] if prover else []
        elif kind == "sealed" and prover == "messages":
            chunks.append(Chunk(redacted=proof, dialect=prover))
            waiting.append(proof)
        elif kind in ("text", "refusal"):
            chunks.append(Chunk(text, is_refusal=kind == "refusal"))
            proofs, waiting = (proofs + waiting, []) if text.strip() else (proofs, waiting)
        elif kind in TOOLS:
            chunks.append(Chunk(tool_call=ToolCallPiece(at, f"call.{number}|{at}", kind, text)))
            proofs, waiting = proofs + waiting, []
    return [*chunks, Chunk(finish="stop"), Chunk(usage=Usage(3, 1), is_last=True)], proofs


def rows_of(dialect: Dialect, answer: Any, order: list[int], told: str) -> list[Any]:
    """What the client adds to the conversation: the answer, its tools' results as they come, and more that is said."""

    def shuffled(ids: list[str]) -> list[str]:
        return [ids[at] for at in order if at < len(ids)]

    user = {"role": "user", "content": told or "?"}
    if dialect is MESSAGES:
        ids = shuffled([block["id"] for block in answer["content"] if block["type"] == "tool_use"])
        results = [{"type": "tool_result", "tool_use_id": id_, "content": told} for id_ in ids]
        said = [{"role": "assistant", "content": answer["content"]}] if answer["content"] else []
        return [*said, {"role": "user", "content": results or told or "?"}]
    if dialect is CHAT_COMPLETIONS:
        message = answer["choices"][0]["message"]
        ids = shuffled([call["id"] for call in message.get("tool_calls") or ()])
        results = [{"role": "tool", "tool_call_id": id_, "content": told} for id_ in ids]
        return [message, *(results or [user])]
    ids = shuffled([item["call_id"] for item in answer["output"] if item["type"] == "function_call"])
    results = [{"type": "function_call_output", "call_id": id_, "output": told} for id_ in ids]
    if results and told:
        results.insert(1, {"role": "developer", "content": told})
    return [*answer["output"], *(results or [user])]


def request(dialect: Dialect, rows: list[Any]) -> Body:
    if dialect is RESPONSES:
        tools = [{"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in TOOLS]
        return {"model": "m", "input": rows, "tools": tools, "store": False}
    if dialect is MESSAGES:
        named = [{"name": name, "input_schema": SCHEMA} for name in TOOLS]
        return {"model": "m", "max_tokens": 2000, "messages": rows, "tools": named}
    functions = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in TOOLS]
    return {"model": "m", "messages": rows, "tools": functions}


@pytest.mark.parametrize("served", SERVED, ids=lambda dialect: dialect.name)
@given(turns=turns)
@settings(max_examples=150, deadline=None)
def test_a_conversation_goes_on_with_any_model(served: ServedDialect, turns: list[Any]) -> None:
    rows: list[Any] = [{"role": "user", "content": "Hi"}]
    wanted: list[tuple[str, str]] = []
    for number, (model, parts, order, told) in enumerate(turns):
        vendor, check = CHECKS[model]
        chat, _ = served.read_request(json.dumps(request(served, rows)).encode())
        if vendor is not served:  # what passes as it came is its client's affair
            sent = vendor.write_request(fit_lengths(chat, vendor.name, model), model, stream=False)
            check(json.loads(sent))
            for prover, proof in wanted if served is not CHAT_COMPLETIONS else ():
                assert (proof.encode() in sent) == (prover == PROVERS.get(vendor.name)), (prover, proof, vendor.name)
        chunks, proofs = answer_of(parts, vendor.name, number)
        wanted += [(PROVERS[vendor.name], proof) for proof in proofs]
        answer = json.loads(served.write_answer(OwnNames(chat).take(chunks), "m", f"id-{number}", 0, chat))
        rows += rows_of(served, answer, order, told)
