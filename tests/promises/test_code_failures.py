"""What becomes of a code request whose model fails, falls silent, or whose client leaves (contract 1.2, 1.5)."""

import json
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.provider import Malformation

one_gateway = pytest.mark.asyncio(loop_scope="session")

V2, V3, V4 = "/v2/code/completions", "/v3/code/completions", "/v4/code/suggestions"
PATHS = (V2, V3, V4)
FAILED = {"detail": "Inference failed"}
LIMITED = {"detail": "Too many requests. Please try again later."}


def body(path: str, *, stream: bool = False) -> Any:
    above = {"file_name": "app.py", "content_above_cursor": "def f", "content_below_cursor": ""}
    if path == V2:
        return {"current_file": above, "stream": stream}
    return {"prompt_components": [{"type": "code_editor_completion", "payload": {**above, "stream": stream}}]}


async def ask(gateway: RunningGateway, path: str, *, stream: bool = False) -> Answer:
    token = gateway.token(unit_primitives=["complete_code"])
    return await gateway.post(path, json=body(path, stream=stream), token=token)


def contract_members(answer: Answer) -> Any:
    return {name: value for name, value in answer.json().items() if name != "refusal"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 502, 503, 529])
@one_gateway
async def test_a_failing_model_is_503(shared: RunningGateway, path: str, status: int, stream: bool) -> None:
    shared.provider.fail_with(status)

    answer = await ask(shared, path, stream=stream)

    assert (answer.status, contract_members(answer)) == (503, FAILED)
    assert answer.refusal.layer == "provider"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
@one_gateway
async def test_a_limited_model_is_429_with_the_models_own_retry_after(
    shared: RunningGateway, path: str, stream: bool
) -> None:
    shared.provider.fail_with(429, times=1)
    shared.provider.fail_with(429, headers={"Retry-After": "17"})

    untold = await ask(shared, path, stream=stream)
    told = await ask(shared, path, stream=stream)

    assert (told.status, contract_members(told), told.header("retry-after")) == (429, LIMITED, "17")
    assert (untold.status, contract_members(untold), untold.header("retry-after")) == (429, LIMITED, None)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
async def test_a_silent_model_is_503_after_the_first_byte_timeout(
    start_gateway: StartGateway, path: str, stream: bool
) -> None:
    gateway = await start_gateway(env={"AIGW_TIMEOUTS__FIRST_BYTE_S": "0.05"})
    gateway.provider.stall()

    answer = await ask(gateway, path, stream=stream)

    assert (answer.status, contract_members(answer)) == (503, FAILED)
    (request,) = gateway.provider.requests  # it may be at work on the first one: none is sent after it
    await request.hung_up.wait()


@pytest.mark.parametrize("path", PATHS)
async def test_an_unreachable_model_is_503(start_gateway: StartGateway, path: str) -> None:
    gateway = await start_gateway()
    gateway.provider.server.stop_listening()

    answer = await ask(gateway, path)

    assert (answer.status, contract_members(answer)) == (503, FAILED)


@pytest.mark.parametrize("how", ["html", "cut_json", "short_body", "error_event"])
@one_gateway
async def test_an_answer_that_is_none_is_503(shared: RunningGateway, how: Malformation) -> None:
    shared.provider.answer_malformed(how)

    answer = await ask(shared, V2)

    assert (answer.status, contract_members(answer)) == (503, FAILED)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("how", ["html", "error_event"])
@one_gateway
async def test_a_stream_that_is_none_is_503(shared: RunningGateway, path: str, how: Malformation) -> None:
    shared.provider.answer_malformed(how)

    answer = await ask(shared, path, stream=True)

    assert (answer.status, contract_members(answer)) == (503, FAILED)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("events", [0, 1, 2, 3])
@one_gateway
async def test_a_stream_that_breaks_before_its_first_text_is_tried_again_and_then_503(
    shared: RunningGateway, path: str, events: int
) -> None:
    shared.provider.cut_after(events, by="close", times=1)
    shared.provider.answer_with(text="return 1", times=1)
    shared.provider.cut_after(events, by="close")

    good = await ask(shared, path, stream=True)
    bad = await ask(shared, path, stream=True)

    assert (good.status, good.is_whole, "return 1" in good.text) == (200, True, True)
    assert (bad.status, contract_members(bad)) == (503, FAILED)


@pytest.mark.parametrize("path", [V2, V3])
@pytest.mark.parametrize("by", ["reset", "close"])
async def test_a_plain_stream_that_breaks_later_is_cut_without_its_final_chunk(
    gateway: RunningGateway, path: str, by: Any
) -> None:
    gateway.provider.answer_with(pieces=["one ", "two ", "three "], hold_after=5)
    token = gateway.token(unit_primitives=["complete_code"])

    async with gateway.stream(path, json=body(path, stream=True), token=token) as answer:
        assert answer.status == 200
        assert (await answer.next_chunk()).startswith(b"one ")
        for connection in list(gateway.provider.server.open):
            connection.close(reset=by == "reset")
        rest = await answer.rest()

    assert not rest.is_whole
    assert b"three" not in rest.body


@one_gateway
async def test_a_stream_without_its_end_is_no_whole_answer(shared: RunningGateway) -> None:
    shared.provider.answer_malformed("no_end")

    answer = await ask(shared, V3, stream=True)

    assert (answer.status, answer.is_whole) == (200, False)


@one_gateway
async def test_v4_tells_a_later_failure_as_an_event_and_never_an_end(shared: RunningGateway) -> None:
    shared.provider.answer_malformed("no_end")

    answer = await ask(shared, V4, stream=True)

    assert answer.status == 200
    assert answer.text.startswith("event: stream_start\r\n")
    assert "stream_end" not in answer.text
    assert not answer.is_whole
    last = answer.text.removesuffix("\r\n\r\n").rpartition("\r\n\r\n")[2]
    event, data = last.split("\r\n")
    told = json.loads(data.removeprefix("data: "))
    assert event == "event: error"
    assert (told["code"], told["message"]) == ("provider_broke", "Inference failed")
    assert isinstance(told["retryable"], bool)


@one_gateway
async def test_an_answer_that_is_complete_does_not_wait_for_the_end_of_http(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="return 1", hold_after=99)  # all events, then silence on an open connection

    answer = await ask(shared, V3, stream=True)

    assert (answer.text, answer.is_whole) == ("return 1", True)


# --- Keep-alive (contract 1.5) ---


async def test_a_silent_v4_stream_carries_comments_until_the_answer_comes(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_STREAM__KEEPALIVE_S": "0.02"})
    gateway.provider.stall()
    token = gateway.token(unit_primitives=["complete_code"])

    async with gateway.stream(V4, json=body(V4, stream=True), token=token) as answer:
        assert (answer.status, answer.header("x-streaming-format")) == (200, "sse")
        assert [await answer.next_chunk(), await answer.next_chunk()] == [b": keep-alive\r\n\r\n"] * 2
        gateway.provider.release()
        rest = await answer.rest()

    text = rest.text.replace(": keep-alive\r\n\r\n", "")
    assert text.startswith("event: stream_start\r\n")
    assert text.endswith("event: stream_end\r\ndata: null\r\n\r\n")
    assert rest.is_whole


async def test_a_failure_after_a_comment_is_an_event(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_STREAM__KEEPALIVE_S": "0.02", "AIGW_TIMEOUTS__FIRST_BYTE_S": "0.1"})
    gateway.provider.stall()

    answer = await ask(gateway, V4, stream=True)

    assert (answer.status, answer.is_whole) == (200, False)
    events = answer.text.replace(": keep-alive\r\n\r\n", "")
    assert events.startswith('event: error\r\ndata: {"code": "provider_timeout", "message": "Inference failed"')
    assert "stream_start" not in events


@pytest.mark.parametrize("path", [V2, V3])
async def test_plain_text_never_carries_comments(start_gateway: StartGateway, path: str) -> None:
    gateway = await start_gateway(env={"AIGW_STREAM__KEEPALIVE_S": "0.01"})
    gateway.provider.answer_with(pieces=["one ", "two"], hold_after=4)
    token = gateway.token(unit_primitives=["complete_code"])

    async with gateway.stream(path, json=body(path, stream=True), token=token) as answer:
        first = await answer.next_chunk()
        # Another stream's comments prove that the time has passed, whatever the machine's speed.
        async with gateway.stream(V4, json=body(V4, stream=True), token=token) as other:
            while await other.next_chunk() != b": keep-alive\r\n\r\n":
                pass
        gateway.provider.release()
        rest = await answer.rest()

    assert (first + rest.body, rest.is_whole) == (b"one two", True)


# --- Trying again ---


@pytest.mark.parametrize("stream", [False, True])
async def test_a_broken_first_try_is_made_good_by_a_second(gateway: RunningGateway, stream: bool) -> None:
    gateway.provider.fail_with(500, times=1)
    gateway.provider.answer_with(text="return 1")

    answer = await ask(gateway, V3, stream=stream)

    assert answer.status == 200
    assert "return 1" in answer.text
    assert len(gateway.provider.requests) == 2
    assert (await gateway.log.find(path=V3))["attempts"] == 2


@one_gateway
async def test_two_failures_are_enough(shared: RunningGateway) -> None:
    shared.provider.fail_with(500)

    assert (await ask(shared, V2)).status == 503
    assert len(shared.provider.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 429])
@one_gateway
async def test_a_second_try_is_not_made_where_it_cannot_help(shared: RunningGateway, status: int) -> None:
    shared.provider.fail_with(status)

    await ask(shared, V2)

    assert len(shared.provider.requests) == 1


@one_gateway
async def test_a_started_stream_is_never_begun_again(shared: RunningGateway) -> None:
    shared.provider.answer_malformed("no_end")

    await ask(shared, V3, stream=True)

    assert len(shared.provider.requests) == 1


async def test_the_operator_sets_how_often_it_is_tried(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_ROUTING__TRIES": "1"})
    gateway.provider.fail_with(500)

    await ask(gateway, V2)

    assert len(gateway.provider.requests) == 1


async def test_one_deadline_holds_over_all_tries(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_TIMEOUTS__REQUEST_S": "0.05"})
    gateway.provider.stall()

    answer = await ask(gateway, V2)

    assert (answer.status, answer.refusal.code) == (503, "provider_timeout")
    await (await gateway.provider.request()).hung_up.wait()


# --- The client leaves ---


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_leaves_before_the_first_byte_takes_the_upstream_call_with_it(
    gateway: RunningGateway, path: str, stream: bool
) -> None:
    gateway.provider.stall()
    token = gateway.token(unit_primitives=["complete_code"])

    async with await gateway.connect() as connection:
        await connection.send(gateway.request_bytes("POST", path, json=body(path, stream=stream), token=token))
        request = await gateway.provider.request()

    await request.hung_up.wait()
    assert (await gateway.log.find(path=path))["outcome"] == "client_cancelled"


@pytest.mark.parametrize("path", PATHS)
@one_gateway
async def test_a_client_that_leaves_in_the_middle_of_a_body_takes_the_upstream_call_with_it(
    shared: RunningGateway, path: str
) -> None:
    shared.provider.stall(after_events=0)
    token = shared.token(unit_primitives=["complete_code"])

    async with await shared.connect() as connection:
        await connection.send(shared.request_bytes("POST", path, json=body(path), token=token))
        request = await shared.provider.request()

    await request.hung_up.wait()


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_leaves_mid_stream_takes_the_upstream_call_with_it(
    gateway: RunningGateway, path: str
) -> None:
    gateway.provider.answer_with(pieces=["one ", "two"], hold_after=4)
    token = gateway.token(unit_primitives=["complete_code"])

    async with gateway.stream(path, json=body(path, stream=True), token=token) as answer:
        assert (answer.status, bool(await answer.next_chunk())) == (200, True)

    request = await gateway.provider.request()
    await request.hung_up.wait()
    line = await gateway.log.find(path=path)
    assert (line["outcome"], line["status_code"]) == ("client_cancelled", 200)


async def test_a_client_that_leaves_a_waiting_v4_stream_takes_the_upstream_call_with_it(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(env={"AIGW_STREAM__KEEPALIVE_S": "0.02"})
    gateway.provider.stall()
    token = gateway.token(unit_primitives=["complete_code"])

    async with gateway.stream(V4, json=body(V4, stream=True), token=token) as answer:
        await answer.next_chunk()
        # On a busy machine the comment is faster than the call.
        request = await gateway.provider.request()

    await request.hung_up.wait()


# --- What is counted and written down ---


async def figures(gateway: RunningGateway) -> dict[str, float]:
    """Series with their labels → value."""
    lines = (await gateway.monitoring("/metrics")).text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"}


async def test_a_model_call_is_in_flight_from_its_sending_to_its_end(gateway: RunningGateway) -> None:
    series = 'model_inferences_in_flight{model_engine="anthropic",model_name="claude-haiku-4-5-20251001"}'
    gateway.provider.answer_with(pieces=["one ", "two"], hold_after=4)
    token = gateway.token(unit_primitives=["complete_code"])

    async with gateway.stream(V3, json=body(V3, stream=True), token=token) as answer:
        await answer.next_chunk()
        during = await figures(gateway)
        gateway.provider.release()
        await answer.rest()
    await gateway.log.find(path=V3)

    assert (during[series], (await figures(gateway))[series]) == (1, 0)


async def test_failed_and_abandoned_calls_are_no_longer_in_flight(gateway: RunningGateway) -> None:
    series = 'model_inferences_in_flight{model_engine="anthropic",model_name="claude-haiku-4-5-20251001"}'
    gateway.provider.fail_with(400, times=1)
    gateway.provider.stall()
    await ask(gateway, V2)
    token = gateway.token(unit_primitives=["complete_code"])

    async with await gateway.connect() as connection:
        await connection.send(gateway.request_bytes("POST", V3, json=body(V3), token=token))
        await gateway.provider.request(2)
        assert (await figures(gateway))[series] == 1
    await gateway.log.find(path=V3)

    assert (await figures(gateway))[series] == 0


async def test_a_suggestion_is_counted_with_its_language_and_its_size(gateway: RunningGateway) -> None:
    asked = body(V2) | {
        "telemetry": [
            {"model_engine": "anthropic", "model_name": "claude-haiku-4-5-20251001", "lang": "python",
             "requests": 3, "accepts": 2, "errors": 1}
        ]
    }  # fmt: skip
    asked["current_file"]["language_identifier"] = "Python"

    await gateway.post(V2, json=asked, token=gateway.token(unit_primitives=["complete_code"]))

    found = await figures(gateway)
    model = 'model_engine="anthropic",model_name="claude-haiku-4-5-20251001"'
    assert found['code_suggestions_prompt_language_total{lang="python",extension="py",editor_lang="python"}'] == 1
    assert found[f"code_suggestions_inference_requests_total{{{model}}}"] == 1
    assert found[f"code_suggestions_inference_prompt_size_bytes_sum{{{model}}}"] > 100
    assert found[f"code_suggestions_inference_prompt_size_tokens_sum{{{model}}}"] == 25
    assert found["code_suggestions_post_processing_duration_seconds_count"] == 1
    feedback = [
        found[f'code_suggestions_{name}_total{{{model},lang="python"}}'] for name in ("requests", "accepts", "errors")
    ]
    assert feedback == [3, 2, 1]


async def test_the_access_line_says_what_was_suggested_by_whom(gateway: RunningGateway) -> None:
    await ask(gateway, V2)

    line = await gateway.log.find(path=V2)
    assert line["code_suggestion_type"] == "completions"
    assert line["meta.feature_category"] == "code_suggestions"
    assert line["meta.unit_primitive"] == "complete_code"
    assert (line["provider"], line["model"]) == ("anthropic", "claude-haiku-4-5-20251001")
    assert line["outcome"] == "completed"
    assert line["provider_s"] > 0
    assert (line["input_tokens"], line["output_tokens"], line["usage_source"]) == (25, 7, "provider")


async def test_neither_prompt_nor_answer_is_written_down(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(text="secret_answer")
    asked = body(V2)
    asked["current_file"]["content_above_cursor"] = "secret_prompt"

    await gateway.post(V2, json=asked, token=gateway.token(unit_primitives=["complete_code"]))
    await gateway.log.find(path=V2)

    written = json.dumps(gateway.log.lines, default=str)
    assert "secret_prompt" not in written
    assert "secret_answer" not in written


# --- The built-in demo (contract 10.5) ---

NO_PROVIDERS = {"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": "", "ANTHROPIC_BASE_URL": ""}


@pytest.mark.parametrize("env", [NO_PROVIDERS, {"AIGW_MOCK_MODEL_RESPONSES": "true"}])
async def test_the_administrators_check_gets_a_suggestion_from_the_demo(
    start_gateway: StartGateway, env: dict[str, str]
) -> None:
    gateway = await start_gateway(env=env)
    file = {"file_name": "test.rb", "content_above_cursor": "def hello_world", "content_below_cursor": ""}
    asked = {"prompt_version": 1, "current_file": file, "project_id": -1, "telemetry": []}

    answer = await gateway.post(V2, json=asked, token=gateway.token(unit_primitives=["complete_code"]))

    assert answer.status == 200
    assert answer.json()["choices"][0]["text"].strip()
    assert answer.json()["model"]["engine"] == "demo"
    assert answer.header("x-torana-demo") == "true"
    assert gateway.provider.requests == []
