"""POST /v1/chat/{invokable}: a client's own prompt, deprecated but in use (contract 7.2)."""

import copy
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.provider import ScriptedProvider

SONNET = "claude-sonnet-4-6"
NO_KEYS = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
OWN = {"AIGW_CUSTOM_MODELS__ENABLED": "true"}
ONE_TRY = {"AIGW_ROUTING__TRIES": "1"}
NO_PREFILL = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": "This model does not support assistant message prefill. "
        "The conversation must end with a user message.",
    },
}
RIGHTS = ("duo_chat", "explain_vulnerability", "summarize_comments", "troubleshoot_job")


def body(content: Any = "Hello", *, stream: bool = False, **payload: Any) -> dict[str, Any]:
    metadata = {"source": "GitLab EE", "version": "17.11.0"}
    component = {"type": "prompt", "metadata": metadata, "payload": {"content": content, **payload}}
    return {"prompt_components": [component], "stream": stream}


async def ask(
    gateway: RunningGateway, asked: Any, name: str = "agent", scopes: tuple[str, ...] = ("duo_chat",)
) -> Answer:
    return await gateway.post(f"/v1/chat/{name}", json=asked, token=gateway.token(unit_primitives=scopes))


def own(gateway: RunningGateway, **payload: Any) -> dict[str, Any]:
    """The body by which administrators test a self-hosted set-up."""
    server = {"provider": "litellm", "model": "mistral", "model_endpoint": f"{gateway.provider.url}/v1"}
    return body(**{**server, **payload})


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def fault(answer: Answer) -> tuple[int, str, str]:
    """(status, path of the member, type of the fault) of a 422."""
    (row,) = answer.json()["detail"]
    assert row["loc"][0] == "body"
    return answer.status, ".".join(map(str, row["loc"][1:])), row["type"]


# --- Answers ---


async def test_a_text_becomes_one_turn_and_the_answer_says_who_gave_it(
    start_gateway: StartGateway, clock: HandClock
) -> None:
    gateway = await start_gateway(clock=clock)
    gateway.provider.answer_with(text="Hi Mia")

    answer = await ask(gateway, body("Hello"))

    assert answer.json() == {
        "response": "Hi Mia",
        "metadata": {"provider": "anthropic", "model": SONNET, "timestamp": int(clock.now())},
    }
    assert answer.header("x-aigw-model") == f"anthropic/{SONNET}"
    (request,) = gateway.provider.requests
    assert request.path == "/v1/messages"
    sent = request.json()
    assert sent["messages"] == [{"role": "user", "content": "Hello"}]
    assert (sent["temperature"], sent["model"]) == (0.2, SONNET)
    assert "stop_sequences" not in sent


async def test_messages_are_sent_as_they_are(gateway: RunningGateway) -> None:
    content = [
        {"role": "system", "content": "Be kind"},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi,"},
    ]

    await ask(gateway, body(content))

    sent = gateway.provider.requests[0].json()
    assert [row["role"] for row in sent["messages"]] == ["user", "assistant"]
    assert "Be kind" in str(sent["system"])


async def test_a_turn_of_the_assistant_that_says_nothing_is_left_out(start_gateway: StartGateway) -> None:
    """GitLab 17 ends the comments to summarize with one; servers that take no begun answer refuse it."""
    gateway = await start_gateway(env=OWN)
    silent = {"role": "assistant", "content": " "}

    await ask(gateway, own(gateway, content=[silent, *turns("Hello"), silent]))
    await ask(gateway, own(gateway, content=[silent]))

    first, second = (request.json()["messages"] for request in gateway.provider.requests)
    assert first == turns("Hello")
    assert second == [silent]  # nothing else is there to be asked


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_begins_anew_loses_what_the_client_had_begun(
    gateway: RunningGateway, stream: bool
) -> None:
    """GitLab 17 sets its beginning before the answer; with two of them no JSON comes of it."""
    begun = '```json\n  {\n    "ResourceIdentifierType": "'
    gateway.provider.answer_with(
        pieces=["```json\n{", '"ResourceIdentifier', 'Type": "i', 'id", "ResourceIdentifier": 12}']
    )

    answer = await ask(gateway, body([*turns("#12?"), {"role": "assistant", "content": begun}], stream=stream))

    said = answer.text if stream else answer.json()["response"]
    assert said == 'iid", "ResourceIdentifier": 12}'


async def test_a_begun_answer_is_followed_by_a_request_to_go_on_where_it_is_refused(gateway: RunningGateway) -> None:
    content = [*turns("Hello"), {"role": "assistant", "content": "Hi,"}]
    gateway.provider.fail_with(400, NO_PREFILL, times=1)

    answer = await ask(gateway, body(content))
    await ask(gateway, body(content))

    first, second, third = (request.json()["messages"] for request in gateway.provider.requests)
    assert (answer.status, answer.json()["response"]) == (200, "Hello from the scripted provider.")
    assert [row["role"] for row in first] == ["user", "assistant"]
    assert [row["role"] for row in second] == ["user", "assistant", "user"]
    assert third == second  # remembered


async def test_other_refusals_of_messages_are_not_sent_again(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(400, NO_PREFILL)
    plain = await ask(gateway, body(turns("Hello")))
    gateway.provider.fail_with(400)
    begun = await ask(gateway, body([*turns("Hello"), {"role": "assistant", "content": "Hi,"}]))

    assert (plain.status, begun.status) == (502, 502)
    assert len(gateway.provider.requests) == 2


async def test_parameters_reach_the_model(gateway: RunningGateway) -> None:
    params = {"stop_sequences": ["END", "STOP"], "temperature": 0.7, "max_tokens_to_sample": 9}

    await ask(gateway, body("Hello", params=params))

    sent = gateway.provider.requests[0].json()
    assert (sent["stop_sequences"], sent["temperature"], sent["max_tokens"]) == (["END", "STOP"], 0.7, 9)


@pytest.mark.parametrize(
    ("content", "asked", "sent"),
    [("Hello", 8192, 8192), (turns("Hello"), 4096, 4096), (turns("Hello"), 4097, 4096), (turns("Hello"), 8192, 4096)],
)
async def test_the_answer_to_messages_is_capped(gateway: RunningGateway, content: Any, asked: int, sent: int) -> None:
    await ask(gateway, body(content, params={"max_tokens_to_sample": asked}))

    assert gateway.provider.requests[0].json()["max_tokens"] == sent


@pytest.mark.parametrize(
    ("name", "upstream"),
    [
        ("claude-2.1", SONNET),
        ("claude-3-5-sonnet-20240620", SONNET),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5-20251001"),
        (None, SONNET),
    ],
)
async def test_names_of_models_old_and_new_are_understood(
    gateway: RunningGateway, name: str | None, upstream: str
) -> None:
    answer = await ask(gateway, body("Hello", provider="anthropic", model=name))

    assert answer.json()["metadata"]["model"] == upstream
    assert gateway.provider.requests[0].json()["model"] == upstream


async def test_a_stream_is_the_bare_text(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(pieces=["Gr", "ün", "\n\n"], segment_bytes=1)

    answer = await ask(gateway, body("Hello", stream=True))

    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream; charset=utf-8")
    assert (answer.text, answer.is_whole) == ("Grün\n\n", True)
    assert answer.header("x-accel-buffering") == "no"


async def test_members_nobody_knows_are_no_fault(gateway: RunningGateway) -> None:
    asked = body("Hello", novel=1) | {"intent": "x"}
    asked["prompt_components"][0]["novel"] = []

    assert (await ask(gateway, asked)).status == 200


async def test_without_keys_the_demo_answers_and_says_so(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=NO_KEYS)

    answer = await ask(gateway, body("Hello"))

    assert answer.header("x-torana-demo") == "true"
    assert answer.json()["metadata"]["provider"] == "demo"
    assert answer.json()["response"]


# --- A client's own server ---


async def test_litellm_asks_the_clients_own_server(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=OWN)
    gateway.provider.answer_with(text="Hi")

    answer = await ask(gateway, own(gateway, model_api_key="k", model_identifier="custom_openai/Mistral-7B"))

    metadata = answer.json()["metadata"]
    assert (answer.json()["response"], metadata["provider"], metadata["model"]) == ("Hi", "litellm", "mistral")
    (request,) = gateway.provider.requests
    assert (request.path, request.json()["model"]) == ("/v1/chat/completions", "Mistral-7B")
    assert request.header("authorization") == "Bearer k"


async def test_without_an_identifier_the_family_is_the_model(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=OWN)

    await ask(gateway, own(gateway))

    assert gateway.provider.requests[0].json()["model"] == "mistral"


async def test_an_endpoint_decides_whatever_the_provider_is_called(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=OWN)

    await ask(gateway, own(gateway, provider="anthropic"))

    assert gateway.provider.requests[0].path == "/v1/chat/completions"


@pytest.mark.parametrize("member", ["model_endpoint", "model_api_key"])
@pytest.mark.parametrize("provider_name", ["anthropic", "litellm"])
async def test_while_custom_models_are_off_an_endpoint_or_key_is_refused(
    gateway: RunningGateway, member: str, provider_name: str
) -> None:
    answer = await ask(gateway, body("Hello", provider=provider_name, **{member: "http://localhost"}))

    assert (answer.status, answer.json()["detail"]) == (400, "Custom models are disabled")
    assert gateway.provider.requests == []


@pytest.mark.parametrize(
    ("payload", "member"),
    [
        ({"model_endpoint": None}, "model_endpoint"),
        ({"model_endpoint": "ftp://x"}, "model_endpoint"),
        ({"model_endpoint": "http://169.254.169.254/v1"}, "model_endpoint"),
        ({"model_identifier": "bedrock/unlisted"}, "model_identifier"),
    ],
)
async def test_a_server_that_cannot_be_asked_is_a_fault_of_the_body(
    start_gateway: StartGateway, payload: dict[str, Any], member: str
) -> None:
    gateway = await start_gateway(env=OWN)

    status, loc, _ = fault(await ask(gateway, own(gateway, **payload)))

    assert (status, loc) == (422, f"prompt_components.0.payload.{member}")
    assert gateway.provider.requests == []


# --- Who may ---


@pytest.mark.parametrize(
    ("name", "unit_primitive"),
    [
        ("agent", "duo_chat"),
        ("explain_code", "duo_chat"),
        ("write_tests", "duo_chat"),
        ("refactor_code", "duo_chat"),
        ("explain_vulnerability", "explain_vulnerability"),
        ("summarize_comments", "summarize_comments"),
        ("troubleshoot_job", "troubleshoot_job"),
    ],
)
async def test_each_name_needs_its_unit_primitive(gateway: RunningGateway, name: str, unit_primitive: str) -> None:
    others = tuple(right for right in RIGHTS if right != unit_primitive)

    passed = await ask(gateway, body(), name, (unit_primitive,))
    refused = await ask(gateway, body(), name, others)

    assert passed.status == 200
    assert (refused.status, refused.json()["detail"]) == (403, f"Unauthorized to access {unit_primitive}")
    assert refused.refusal.missing == unit_primitive
    assert len(gateway.provider.requests) == 1


@pytest.mark.parametrize("name", ["xyz", "agent/", "agent%2Fx", "Agent", "fix_code"])
async def test_another_name_is_404_after_the_body_and_before_permission(gateway: RunningGateway, name: str) -> None:
    unknown = await ask(gateway, body(), name, scopes=())
    invalid = await ask(gateway, {}, name, scopes=())

    assert (unknown.status, unknown.json()["detail"], unknown.refusal.code) == (404, "Not found", "not_found")
    assert invalid.status == 422


async def test_a_faulty_body_is_told_before_the_permission(gateway: RunningGateway) -> None:
    assert (await ask(gateway, body(7), scopes=())).status == 422


# --- Limits ---


@pytest.mark.parametrize(
    ("path", "good", "bad", "kind"),
    [
        (("type",), "t" * 100, "t" * 101, "string_too_long"),
        (("metadata", "source"), "s" * 100, "s" * 101, "string_too_long"),
        (("metadata", "version"), "v" * 100, "v" * 101, "string_too_long"),
        (("payload", "content"), "c" * 400_000, "c" * 400_001, "string_too_long"),
        (("payload", "content"), turns(*"x" * 100), turns(*"x" * 101), "too_long"),
        (("payload", "content"), turns("x"), [], "too_short"),
        (("payload", "params"), {"stop_sequences": ["s"] * 10}, {"stop_sequences": ["s"] * 11}, "too_long"),
        (("payload", "params"), {"stop_sequences": ["s"]}, {"stop_sequences": []}, "too_short"),
        (("payload", "params"), {"stop_sequences": ["s" * 225]}, {"stop_sequences": ["s" * 226]}, "string_too_long"),
        (("payload", "params"), {"stop_sequences": ["s"]}, {"stop_sequences": [1]}, "string_type"),
        (("payload", "params"), {"temperature": 1}, {"temperature": 1.01}, "value_error"),
        (("payload", "params"), {"temperature": 0}, {"temperature": -0.01}, "value_error"),
        (("payload", "params"), {"max_tokens_to_sample": 8192}, {"max_tokens_to_sample": 8193}, "value_error"),
        (("payload", "params"), {"max_tokens_to_sample": 1}, {"max_tokens_to_sample": 0}, "value_error"),
        (("payload", "params"), {"max_tokens_to_sample": "64"}, {"max_tokens_to_sample": "x"}, "int_type"),
        (("payload", "provider"), "anthropic", "vertex-ai", "literal_error"),
        (("payload", "model"), SONNET, "claude-9", "value_error"),
        (("payload", "model"), SONNET, "m" * 256, "string_too_long"),
    ],
)
async def test_each_limit_holds_alone(
    gateway: RunningGateway, path: tuple[str, ...], good: Any, bad: Any, kind: str
) -> None:
    found = []
    for value in (good, bad):
        asked = copy.deepcopy(body())
        members = asked["prompt_components"][0]
        for name in path[:-1]:
            members = members[name]
        members[path[-1]] = value
        found.append(await ask(gateway, asked))

    assert found[0].status == 200
    status, loc, type_ = fault(found[1])
    assert (status, type_) == (422, kind)
    assert loc.startswith(f"prompt_components.0.{'.'.join(path)}")


@pytest.mark.parametrize(("count", "status"), [(0, 422), (1, 200), (2, 422)])
async def test_there_is_exactly_one_component(gateway: RunningGateway, count: int, status: int) -> None:
    asked = body()
    asked["prompt_components"] *= count

    assert (await ask(gateway, asked)).status == status


@pytest.mark.parametrize("missing", ["type", "metadata", "payload"])
async def test_what_is_missing_is_named(gateway: RunningGateway, missing: str) -> None:
    asked = body()
    del asked["prompt_components"][0][missing]

    assert fault(await ask(gateway, asked)) == (422, f"prompt_components.0.{missing}", "missing")


@pytest.mark.parametrize(
    "content", [None, 1, {}, [1], [{}], [{"role": "user"}], [{"role": "tool", "content": "x"}], [{"content": "x"}]]
)
async def test_content_is_a_text_or_messages(gateway: RunningGateway, content: Any) -> None:
    assert (await ask(gateway, body(content))).status == 422


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'"text"', b"\xff"])
async def test_a_body_that_is_no_object_is_a_json_fault(gateway: RunningGateway, raw: bytes) -> None:
    answer = await gateway.post("/v1/chat/agent", body=raw, token=gateway.token(unit_primitives=["duo_chat"]))

    assert fault(answer) == (422, "", "json_invalid")


# --- Failures (contract 1.2) ---


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
async def test_an_error_status_is_502(start_gateway: StartGateway, status: int, stream: bool) -> None:
    gateway = await start_gateway(env=ONE_TRY)
    gateway.provider.fail_with(status)

    answer = await ask(gateway, body("Hello", stream=stream))

    assert (answer.status, answer.json()["detail"]) == (502, "Anthropic API Status Error.")
    assert answer.refusal.layer == "provider"


async def test_silence_is_504(start_gateway: StartGateway, provider: ScriptedProvider) -> None:
    gateway = await start_gateway(env=ONE_TRY | {"AIGW_TIMEOUTS__FIRST_BYTE_S": "0.05"})
    provider.stall()

    answer = await ask(gateway, body())

    assert (answer.status, answer.json()["detail"]) == (504, "Anthropic API Timeout Error.")


async def test_nobody_there_is_502(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=ONE_TRY | {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"})

    answer = await ask(gateway, body())

    assert (answer.status, answer.json()["detail"]) == (502, "Anthropic API Connection Error.")
    assert answer.refusal.code == "provider_unreachable"


async def test_an_answer_that_is_cut_is_502(start_gateway: StartGateway, provider: ScriptedProvider) -> None:
    gateway = await start_gateway(env=ONE_TRY)
    provider.answer_malformed("short_body")

    answer = await ask(gateway, body())

    assert (answer.status, answer.json()["detail"]) == (502, "Anthropic API Connection Error.")


async def test_a_stream_that_breaks_later_is_cut(gateway: RunningGateway) -> None:
    gateway.provider.answer_malformed("no_end")

    answer = await ask(gateway, body("Hello", stream=True))

    assert (answer.status, answer.is_whole) == (200, False)
    assert answer.text


async def test_a_client_that_leaves_hangs_up_on_the_provider(gateway: RunningGateway) -> None:
    gateway.provider.stall(after_events=4)
    token = gateway.token(unit_primitives=["duo_chat"])

    async with gateway.stream("/v1/chat/agent", json=body("Hello", stream=True), token=token) as answer:
        assert await answer.next_chunk()
    request = await gateway.provider.request(1)

    await request.hung_up.wait()
