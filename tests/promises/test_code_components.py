"""POST /v3/code/completions and /v4/code/suggestions: the component envelope, plain and event streams (contract 6)."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer

one_gateway = pytest.mark.asyncio(loop_scope="session")

V3, V4 = "/v3/code/completions", "/v4/code/suggestions"
HAIKU, SONNET = "claude-haiku-4-5-20251001", "claude-sonnet-4-6"
COMPLETION, GENERATION = "code_editor_completion", "code_editor_generation"
CONTEXT = {"type": "code_context", "payload": {"type": "file", "name": "lib.go", "content": "func Helper() {}"}}


def component(kind: str = COMPLETION, **payload: Any) -> dict[str, Any]:
    file = {"file_name": "app.go", "content_above_cursor": "package main\n", "content_below_cursor": ""}
    return {"type": kind, "payload": file | payload, "metadata": {"source": "GitLab EE", "version": "17.9.0"}}


def body(kind: str = COMPLETION, *others: dict[str, Any], **payload: Any) -> dict[str, Any]:
    return {"prompt_components": [component(kind, **payload), *others]}


async def ask(gateway: RunningGateway, path: str, asked: Any, **headers: str) -> Answer:
    token = gateway.token(unit_primitives=["complete_code", "generate_code"])
    return await gateway.post(path, json=asked, token=token, headers=headers)


def sent_text(gateway: RunningGateway) -> str:
    return json.dumps(gateway.provider.requests[-1].json())


@pytest.mark.parametrize("path", [V3, V4])
@pytest.mark.parametrize(("kind", "model"), [(COMPLETION, HAIKU), (GENERATION, SONNET)])
@one_gateway
async def test_the_first_component_decides_the_work(shared: RunningGateway, path: str, kind: str, model: str) -> None:
    shared.provider.answer_with(text="func main() {}")

    answer = await ask(shared, path, body(kind), **{"X-Gitlab-Enabled-Feature-Flags": "a_flag"})

    found = answer.json()
    assert isinstance(found["metadata"].pop("timestamp"), int)
    shown = {"engine": "anthropic", "name": model, "lang": "go"}
    assert found == {
        "choices": [{"text": "func main() {}", "index": 0, "finish_reason": "length"}],
        "metadata": {"model": shown, "enabled_feature_flags": ["a_flag"]},
        "model": shown,
    }
    assert shared.provider.requests[0].json()["model"] == model


@pytest.mark.parametrize(
    ("scopes", "kind", "status"),
    [
        (["complete_code"], COMPLETION, 200),
        (["complete_code"], GENERATION, 403),
        (["generate_code"], GENERATION, 200),
        (["generate_code"], COMPLETION, 403),
        ([], COMPLETION, 403),
    ],
)
@pytest.mark.parametrize("path", [V3, V4])
@one_gateway
async def test_each_kind_needs_its_own_unit_primitive(
    shared: RunningGateway, path: str, scopes: list[str], kind: str, status: int
) -> None:
    answer = await shared.post(path, json=body(kind), token=shared.token(unit_primitives=scopes))

    assert answer.status == status
    if status == 403:
        assert answer.json()["detail"] == "Unauthorized to access code suggestions"


@pytest.mark.parametrize("path", [V3, V4])
@one_gateway
async def test_user_tokens_are_refused(shared: RunningGateway, path: str) -> None:
    token = shared.user_token(unit_primitives=["complete_code", "generate_code"])

    answer = await shared.post(path, json=body(), token=token)

    assert (answer.status, answer.json()["detail"]) == (403, "Unauthorized to access code suggestions")


@one_gateway
async def test_a_registry_prompt_gets_the_enhancers_inputs_and_names_itself(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="package main")
    asked = body(
        GENERATION,
        prompt_id="code_suggestions/generations",
        prompt_version="^1.0.0",
        prompt_enhancer={"user_instruction": "serve /healthz", "libraries": ["net/http"], "examples_array": []},
    )
    asked["model_metadata"] = {"provider": "gitlab", "identifier": "", "feature_setting": "code_generations"}

    answer = await ask(shared, V3, asked)

    assert answer.json()["model"] == {"engine": "agent", "name": "Generation default", "lang": "go"}
    assert "serve /healthz" in sent_text(shared)
    assert answer.header(
        "x-aigw-prompt",
    ).startswith("code_suggestions/generations@1.")  # type: ignore[union-attr]


@pytest.mark.parametrize("path", [V3, V4])
@one_gateway
async def test_a_registry_prompt_of_another_right_needs_that_right(shared: RunningGateway, path: str) -> None:
    asked = body(GENERATION, prompt_id="generate_commit_message", prompt_enhancer={"diff": "+ x"})

    answer = await shared.post(path, json=asked, token=shared.token(unit_primitives=["generate_code"]))

    assert (answer.status, answer.json()["detail"]) == (403, "Unauthorized to access code suggestions")
    assert answer.json()["refusal"]["missing"] == "generate_commit_message"
    assert shared.provider.requests == []


@one_gateway
async def test_an_identifier_of_the_catalogue_chooses_the_model(shared: RunningGateway) -> None:
    asked = body(model_provider="anthropic", model_name="claude-3-5-sonnet-20240620")
    asked["model_metadata"] = {"provider": "gitlab", "identifier": "claude_opus_4_6"}

    await ask(shared, V3, asked)

    assert shared.provider.requests[0].json()["model"] == "claude-opus-4-6"


@pytest.mark.parametrize(
    ("version", "is_used"),
    [
        ("6.3.0", True),
        ("6.3.1", True),
        ("7.17.1", True),
        ("10.0.0", True),
        ("6.2.9", False),
        ("6.3.0-rc.1", False),
        ("", False),
        ("6.3", False),
        ("latest", False),
    ],
)
@one_gateway
async def test_attached_context_waits_for_a_language_server_that_means_it(
    shared: RunningGateway, version: str, is_used: bool
) -> None:
    await ask(shared, V3, body(COMPLETION, CONTEXT), **{"X-Gitlab-Language-Server-Version": version})

    assert ("func Helper() {}" in sent_text(shared)) is is_used


@one_gateway
async def test_an_absent_language_server_version_leaves_the_context_out(shared: RunningGateway) -> None:
    await ask(shared, V3, body(COMPLETION, CONTEXT))

    assert "func Helper() {}" not in sent_text(shared)


async def test_the_operator_moves_the_gate(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_CODE_CONTEXT_MIN_LS_VERSION": "7.17.1"})

    await ask(gateway, V3, body(COMPLETION, CONTEXT), **{"X-Gitlab-Language-Server-Version": "7.17.0"})
    assert "func Helper() {}" not in sent_text(gateway)
    await ask(gateway, V3, body(COMPLETION, CONTEXT), **{"X-Gitlab-Language-Server-Version": "7.17.1"})
    assert "func Helper() {}" in sent_text(gateway)


@one_gateway
async def test_generations_get_attached_context_too(shared: RunningGateway) -> None:
    await ask(shared, V3, body(GENERATION, CONTEXT), **{"X-Gitlab-Language-Server-Version": "6.3.0"})

    assert "func Helper() {}" in sent_text(shared)


@one_gateway
async def test_v3_streams_the_bare_text(shared: RunningGateway) -> None:
    shared.provider.answer_with(pieces=["func ", "main", "() {}"])

    answer = await ask(shared, V3, body(stream=True))

    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert answer.header("x-streaming-format") is None
    assert (answer.text, answer.is_whole) == ("func main() {}", True)


@pytest.mark.parametrize("segment_bytes", [None, 1, 3])
@one_gateway
async def test_each_v3_chunk_is_of_whole_letters(shared: RunningGateway, segment_bytes: int | None) -> None:
    # Editors decode what arrives chunk by chunk; half a letter would be shown as two broken ones.
    shared.provider.answer_with(pieces=["größe ", "日本", "語 😀", "é"], segment_bytes=segment_bytes)

    answer = await ask(shared, V3, body(stream=True))

    assert "".join(chunk.decode() for chunk in answer.chunks) == "größe 日本語 😀é"


def events_of(answer: Answer) -> list[tuple[str, Any]]:
    """(event, data) in order; checks the framing on the way."""
    assert answer.body.endswith(b"\r\n\r\n")
    assert b"\n" not in answer.body.replace(b"\r\n", b"")
    found = []
    for block in answer.text.removesuffix("\r\n\r\n").split("\r\n\r\n"):
        event, data = block.split("\r\n")
        found.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@one_gateway
async def test_v4_streams_these_very_bytes(shared: RunningGateway) -> None:
    # One piece, so that what arrives together cannot differ from run to run.
    shared.provider.answer_with(text='\ndef "hellö"')

    answer = await ask(shared, V4, body(stream=True))

    timestamp = events_of(answer)[0][1]["metadata"]["timestamp"]
    assert answer.body == (
        b"event: stream_start\r\n"
        b'data: {"metadata": {"model": {"engine": "anthropic", "name": "claude-haiku-4-5-20251001"}, '
        b'"timestamp": %d, "region": ""}}\r\n\r\n'
        b"event: content_chunk\r\n"
        b'data: {"choices": [{"delta": {"content": "\\ndef \\"hell\\u00f6\\""}, "index": 0}]}\r\n\r\n'
        b"event: stream_end\r\ndata: null\r\n\r\n" % timestamp
    )
    assert answer.status == 200
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert answer.header("x-streaming-format") == "sse"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("x-accel-buffering") == "no"
    assert answer.header("x-aigw-model") == f"anthropic/{HAIKU}"


async def test_a_v4_stream_tells_where_its_model_is(start_gateway: StartGateway, tmp_path: Path) -> None:
    # Editors of 18 and later drop a start whose region is no text, and what it says of the model with it.
    (tmp_path / "models.yml").write_text(
        "models:\n- name: claude_haiku_4_5\n  title: H\n"
        "  deployments: [{provider: anthropic, model: m, region: eu-west-1}]\n"
    )
    gateway = await start_gateway({"AIGW_CATALOG": str(tmp_path)})

    (_, start), *_ = events_of(await ask(gateway, V4, body(stream=True)))

    assert start["metadata"]["region"] == "eu-west-1"


@one_gateway
async def test_v4_is_complete_under_one_byte_reads(shared: RunningGateway) -> None:
    shared.provider.answer_with(pieces=["grün ", "\r\n", "😀"], segment_bytes=1)

    events = events_of(await ask(shared, V4, body(stream=True)))

    assert [events[0][0], events[-1]] == ["stream_start", ("stream_end", None)]
    assert {name for name, _ in events[1:-1]} == {"content_chunk"}
    assert "".join(data["choices"][0]["delta"]["content"] for _, data in events[1:-1]) == "grün \r\n😀"


@one_gateway
async def test_an_empty_v4_stream_still_starts_and_ends(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="")

    events = events_of(await ask(shared, V4, body(stream=True)))

    assert [name for name, _ in events if name != "content_chunk"] == ["stream_start", "stream_end"]


@one_gateway
async def test_a_v4_answer_that_does_not_stream_has_no_stream_header(shared: RunningGateway) -> None:
    answer = await ask(shared, V4, body())

    assert (answer.header("content-type"), answer.header("x-streaming-format")) == ("application/json", None)


@pytest.mark.parametrize("path", [V3, V4])
@one_gateway
async def test_streamed_generations_lose_their_fence_lines_on_the_way(shared: RunningGateway, path: str) -> None:
    shared.provider.answer_with(pieces=["``", "`go\nfunc main", "() {}\n", "```", "\n"])

    answer = await ask(shared, path, body(GENERATION, stream=True))

    if path == V3:
        text = answer.text
    else:
        chunks = [data for name, data in events_of(answer) if name == "content_chunk"]
        text = "".join(data["choices"][0]["delta"]["content"] for data in chunks)
    assert text == "func main() {}\n"


@pytest.mark.parametrize("path", [V3, V4])
@one_gateway
async def test_amazon_q_is_501_with_its_unit_primitive_also_as_a_stream(shared: RunningGateway, path: str) -> None:
    asked = body(stream=True)
    asked["model_metadata"] = {"provider": "amazon_q", "name": "amazon_q", "role_arn": "arn:aws:iam::1:role/q"}

    denied = await ask(shared, path, asked)
    permitted = await shared.post(path, json=asked, token=shared.token(unit_primitives=["amazon_q_integration"]))

    assert (denied.status, permitted.status) == (403, 501)


@pytest.mark.parametrize(
    ("kind", "payload", "member"),
    [
        (COMPLETION, {"model_provider": "vertex-ai", "model_name": "nobody-knows"}, "model_name"),
        (GENERATION, {"model_provider": "anthropic", "model_name": "nobody-knows"}, "model_name"),
        (GENERATION, {"model_provider": "vertex-ai", "model_name": "nobody-knows"}, "model_name"),
        (GENERATION, {"prompt_id": "code_suggestions/generations", "prompt_version": "latest"}, "prompt_version"),
    ],
)
@pytest.mark.parametrize("path", [V3, V4])
@one_gateway
async def test_a_fault_of_the_component_is_told_before_permission_and_where_it_stands(
    shared: RunningGateway, path: str, kind: str, payload: dict[str, Any], member: str
) -> None:
    answer = await shared.post(path, json=body(kind, **payload), token=shared.token(unit_primitives=[]))

    assert answer.status == 422
    (row,) = answer.json()["detail"]
    assert (row["loc"], row["type"]) == (["body", "prompt_components", 0, "payload", member], "value_error")
