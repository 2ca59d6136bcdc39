"""Models that refuse to be asked to think, or to carry an answer on, are asked without it, and the client is told."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.promises.test_dialect_routes import CHAT, MESSAGES, ask
from tests.support.gateway import RunningGateway
from tests.support.provider import ScriptedProvider

MODELS = """\
models:
- {name: acme_large, title: Acme Large, vendor: Acme, deployments: [{provider: acme, model: acme-large-1}]}
"""
THINKING = {"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 2000}}
OLLAMAS = '"llama3.1:8b" does not support thinking'
REFUSALS = [
    OLLAMAS,
    'think value "low" is not supported for this model',
    "`reasoning_effort` is not supported with this model",
    "`reasoning_effort` must be one of `none` or `default`",
    "Unsupported parameter: 'reasoning_effort' is not supported with this model.",
    "Unrecognized request argument supplied: reasoning_effort",
    "Unexpected reasoning effort low. Supported types are xhigh (default), medium, and high",
    "1 validation error for ChatCompletionServerRequest\nreasoning_effort\n Input should be 'none' or 'high'",
    "Argument not supported on this model: reasoningEffort",
    "reasoning_effort: Extra inputs are not permitted",
    "litellm.UnsupportedParamsError: ollama does not support parameters: ['reasoning_effort'], for model=llama3",
]


def write_overlay(folder: Path, base_url: str) -> None:
    folder.mkdir()
    row = f"{{name: acme, dialect: chat_completions, base_url: {base_url}}}"
    (folder / "providers.yml").write_text(f"- {row}\n")
    (folder / "models.yml").write_text(MODELS)


async def start(start_gateway: StartGateway, provider: ScriptedProvider, folder: Path, **env: str) -> RunningGateway:
    write_overlay(folder, f"{provider.url}/acme")
    return await start_gateway(env={"AIGW_CATALOG": str(folder), **env})


@pytest.fixture
async def gateway(start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path) -> RunningGateway:
    return await start(start_gateway, provider, tmp_path / "overlay")


def refusal(text: str) -> Any:
    return {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": None}}


@pytest.mark.parametrize("text", REFUSALS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_never_thinks_is_asked_again_without(
    gateway: RunningGateway, text: str, stream: bool
) -> None:
    gateway.provider.fail_with(400, refusal(text), times=1)

    first = await ask(gateway, MESSAGES, "acme_large", stream=stream, **THINKING)
    second = await ask(gateway, MESSAGES, "acme_large", stream=stream, **THINKING)

    assert [(each.status, each.header("x-torana-dropped")) for each in (first, second)] == [(200, "reasoning")] * 2
    efforts = [request.json().get("reasoning_effort") for request in gateway.provider.requests]
    assert efforts == ["low", None, None]  # remembered


@pytest.mark.parametrize(
    "text",
    [
        "'messages.1' : for 'role:assistant' the following must be satisfied[('messages.1' : property "
        "'reasoning_content' is unsupported)]",
        "messages[1].reasoning: reasoning is not supported with this model",
    ],
)
async def test_a_model_that_takes_no_thoughts_back_is_asked_without_them_too(
    gateway: RunningGateway, text: str
) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "chat_completions*:Hm."}
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes."}]},
        {"role": "user", "content": "Go on"},
    ]
    gateway.provider.fail_with(400, refusal(REFUSALS[2]), times=1)
    gateway.provider.fail_with(400, refusal(text), times=1)

    first = await ask(gateway, MESSAGES, "acme_large", messages=turns, **THINKING)
    second = await ask(gateway, MESSAGES, "acme_large", messages=turns, **THINKING)

    assert [each.header("x-torana-dropped") for each in (first, second)] == ["reasoning, thought"] * 2
    rows = [request.json()["messages"][1] for request in gateway.provider.requests]
    assert ["reasoning_content" in row for row in rows] == [True, True, False, False]  # remembered


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "`temperature` is deprecated for this model."),
        (400, "The model returned the following errors: temperature is deprecated for this model."),
        (
            400,
            "Unsupported value: 'temperature' does not support 0.2 with this model. Only 1 is supported.",
        ),
        (400, "Unsupported parameter: 'top_p' is not supported with this model."),
    ],
)
async def test_a_model_that_knows_no_temperature_is_asked_again_without(
    gateway: RunningGateway, status: int, text: str
) -> None:
    gateway.provider.fail_with(status, refusal(text), times=1)

    first = await ask(gateway, MESSAGES, "acme_large", temperature=0.2, top_p=0.9)
    second = await ask(gateway, MESSAGES, "acme_large", temperature=0.2, top_p=0.9)

    assert [each.header("x-torana-dropped") for each in (first, second)] == ["temperature, top_p"] * 2
    asked = [sorted(request.json().keys() & {"temperature", "top_p"}) for request in gateway.provider.requests]
    assert asked == [["temperature", "top_p"], [], []]  # remembered


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("max_tokens is too large: 32000. This model supports at most 16384 completion tokens.", 16384),
        ("Invalid 'max_output_tokens': integer above maximum value. Expected a value <= 16384, but got 32000.", 16384),
        (
            "The model returned the following errors: max_tokens: 32000 > 8192, which is the maximum allowed number",
            8192,
        ),
        ("The maximum tokens you requested exceeds the model limit of 10000. Try again with a lower value.", 10000),
        (
            "it has a maxOutputTokens value of 32000 but the supported range is from 1 (inclusive) to 8193 (exclusive)",
            8192,
        ),
        ("`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than", 8192),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
    ],
)
async def test_a_model_that_writes_less_than_is_asked_for_is_asked_for_as_much_as_it_writes(
    gateway: RunningGateway, text: str, limit: int
) -> None:
    gateway.provider.fail_with(400, refusal(text), times=1)

    asked = [await ask(gateway, MESSAGES, "acme_large", max_tokens=tokens) for tokens in (32000, 32000, 100)]

    assert [each.header("x-torana-dropped") for each in asked] == ["max_tokens", "max_tokens", None]
    limits = [request.json()["max_tokens"] for request in gateway.provider.requests]
    assert limits == [32000, limit, limit, 100]  # remembered, and of no concern to who asks for less


async def test_a_limit_that_does_not_help_is_not_asked_for_again_and_again(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(400, refusal("This model supports at most 16384 completion tokens."))

    answer = await ask(gateway, MESSAGES, "acme_large", max_tokens=32000)

    assert answer.status == 400
    assert [request.json()["max_tokens"] for request in gateway.provider.requests] == [32000, 16384]


async def test_a_template_that_refuses_the_effort_with_500_is_asked_without_it(gateway: RunningGateway) -> None:
    text = "Unexpected reasoning effort high. Supported types are xhigh (default), medium, and low"
    gateway.provider.fail_with(500, {"error": {"message": text, "type": "InternalServerError", "code": 500}}, times=1)

    answer = await ask(gateway, MESSAGES, "acme_large", **THINKING)

    assert (answer.status, answer.header("x-torana-dropped")) == (200, "reasoning")
    assert [request.json().get("reasoning_effort") for request in gateway.provider.requests] == ["low", None]


async def test_a_feature_gives_way_too_and_loses_nothing_of_its_callers(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(400, refusal("`temperature` is deprecated for this model."), times=1)

    answer = await gateway.post(
        "/v1/prompts/chat/explain_code",
        json={
            "inputs": {"input": "why", "selected_text": "x = 1"},
            "model_metadata": {"provider": "gitlab", "identifier": "acme_large"},
        },
        token=gateway.token(unit_primitives=["explain_code"]),
    )

    assert (answer.status, answer.header("x-torana-dropped")) == (200, None)
    assert ["temperature" in request.json() for request in gateway.provider.requests] == [True, False]
    (record,) = gateway.usage()
    assert [(each["outcome"], each["status"]) for each in record["tries"]] == [("failed", 400), ("answered", 200)]


async def test_who_asks_for_no_thought_loses_none(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(400, refusal(OLLAMAS), times=1)
    await ask(gateway, MESSAGES, "acme_large", **THINKING)

    answer = await ask(gateway, MESSAGES, "acme_large")

    assert (answer.status, answer.header("x-torana-dropped")) == (200, None)


async def test_a_refusal_that_goes_on_is_told_and_not_remembered(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(400, refusal(f"your words: {OLLAMAS}"), times=2)

    failed = await ask(gateway, MESSAGES, "acme_large", **THINKING)
    answer = await ask(gateway, MESSAGES, "acme_large", **THINKING)

    assert (failed.status, answer.status) == (400, 200)
    assert answer.header("x-torana-dropped") is None
    assert gateway.provider.requests[2].json()["reasoning_effort"] == "low"


async def test_what_a_client_has_a_refusal_quote_is_not_remembered_for_others(gateway: RunningGateway) -> None:
    words = "This model supports at most 1 completion tokens"
    forbidden = f"[{{'type': 'extra_forbidden', 'loc': ('body', 'user'), 'input': '{words}'}}]"
    gateway.provider.fail_with(400, refusal(forbidden), times=2)

    quoted = await ask(gateway, MESSAGES, "acme_large", max_tokens=500, metadata={"user_id": words})
    other = await ask(gateway, MESSAGES, "acme_large", max_tokens=500, metadata={"user_id": "mia"})

    assert (quoted.status, other.status) == (200, 200)
    sent = [request.json() for request in gateway.provider.requests]
    assert ["user" in each for each in sent] == [True, True, False, False]
    assert sent[3]["max_tokens"] == 500


async def test_another_refusal_is_not_sent_again(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(400, refusal("Thinking mode does not support this tool_choice"))

    answer = await ask(gateway, MESSAGES, "acme_large", **THINKING)

    assert (answer.status, len(gateway.provider.requests)) == (400, 1)


async def test_a_client_of_the_models_own_format_reads_the_refusal_itself(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(400, refusal(OLLAMAS))

    answer = await ask(gateway, CHAT, "acme_large", reasoning_effort="low")

    assert (answer.status, len(gateway.provider.requests)) == (400, 1)
    assert OLLAMAS in answer.json()["error"]["message"]


async def test_where_nothing_may_be_left_out_the_refusal_stands(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path
) -> None:
    gateway = await start(start_gateway, provider, tmp_path / "overlay", AIGW_DIALECT__LOSSES="refuse")
    provider.fail_with(400, refusal(OLLAMAS))

    answer = await ask(gateway, MESSAGES, "acme_large", **THINKING)

    assert (answer.status, len(provider.requests)) == (400, 1)


async def test_an_answer_that_mistrals_templates_carry_on_nowhere_is_asked_for_in_words(
    gateway: RunningGateway,
) -> None:
    text = "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant"
    gateway.provider.fail_with(400, refusal(text), times=1)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello,"}]

    answer = await ask(gateway, MESSAGES, "acme_large", messages=turns)

    assert (answer.status, answer.header("x-torana-dropped")) == (200, "begun_answer")
    first, second = (json.loads(request.body)["messages"] for request in gateway.provider.requests)
    assert [row["role"] for row in first] == ["user", "assistant"]
    assert [row["role"] for row in second] == ["user", "assistant", "user"]


AZURES = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


async def test_a_model_of_openais_behind_any_name_is_asked_as_it_can_be(
    start_gateway: StartGateway, provider: ScriptedProvider
) -> None:
    """What an instance names says nothing of the model behind it: a deployment of Azure's, a proxy's own name."""
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    for text in (
        AZURES,
        "Unsupported value: 'temperature' does not support 0.1 with this model. Only the default (1) is supported.",
        "Unsupported parameter: 'stop' is not supported with this model.",
        "Unrecognized request argument supplied: stream_options",
    ):
        provider.fail_with(400, refusal(text), times=1)
    wish = {"provider": "openai", "name": "gpt", "endpoint": f"{provider.url}/v1", "identifier": "custom_openai/ours"}
    asked = {"messages": [{"role": "user", "content": "Hi"}], "model_metadata": wish}
    provider.answer_with(text="Final Answer: Yes")

    answers = [
        await gateway.post("/v2/chat/agent", json=asked, token=gateway.token(unit_primitives=["duo_chat"]))
        for _ in range(2)
    ]

    for answer in answers:
        rows = [json.loads(line) for line in answer.text.splitlines()]
        assert "".join(row["data"].get("text", "") for row in rows).strip() == "Yes"
    names = {"max_tokens", "max_completion_tokens", "temperature", "stop", "stream_options"}
    sent = [sorted(names & request.json().keys()) for request in provider.requests]
    assert sent[0] == ["max_tokens", "stop", "stream_options", "temperature"]
    assert sent[-2:] == [["max_completion_tokens"]] * 2  # remembered
    assert len(sent) == 6


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "Argument not supported on this model: stop"),
        (400, "Model grok-4 does not support parameter stop."),
        (400, "litellm.UnsupportedParamsError: acme does not support parameters: ['stop'], for model=acme-large-1"),
        (400, "'messages' : property 'stop' is unsupported"),
        (400, "Extra inputs are not permitted, field: 'stop', value: ['x']"),
        (400, "[{'type': 'extra_forbidden', 'loc': ('body', 'stop'), 'msg': 'Extra inputs are not permitted'}]"),
        (422, "stop: Extra inputs are not permitted"),
    ],
)
async def test_who_takes_no_stops_is_asked_without_and_the_client_told(
    gateway: RunningGateway, status: int, text: str
) -> None:
    gateway.provider.fail_with(status, refusal(text), times=1)

    asked = [await ask(gateway, MESSAGES, "acme_large", stop_sequences=["x"]) for _ in range(2)]

    assert [(each.status, each.header("x-torana-dropped")) for each in asked] == [(200, "stop")] * 2
    assert ["stop" in request.json() for request in gateway.provider.requests] == [True, False, False]


async def test_who_knows_the_older_name_alone_gets_it(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path
) -> None:
    (tmp_path / "models.yml").write_text(
        "models:\n- {name: older, title: O, deployments: [{provider: azure, model: older}]}\n"
    )
    env = {"AZURE_API_KEY": "k", "AZURE_API_BASE": f"{provider.url}/openai/v1", "AIGW_CATALOG": str(tmp_path)}
    gateway = await start_gateway(env=env)
    provider.fail_with(400, refusal("Unrecognized request argument supplied: max_completion_tokens"), times=1)

    asked = [await ask(gateway, MESSAGES, "older") for _ in range(2)]

    assert [(each.status, each.header("x-torana-dropped")) for each in asked] == [(200, None)] * 2
    limits = [request.json().keys() & {"max_tokens", "max_completion_tokens"} for request in provider.requests]
    assert limits == [{"max_completion_tokens"}, {"max_tokens"}, {"max_tokens"}]


async def test_who_knows_neither_name_is_told_as_it_says(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(400, refusal(AZURES), times=1)
    gateway.provider.fail_with(400, refusal("Unknown parameter: 'max_completion_tokens'."))

    answer = await ask(gateway, MESSAGES, "acme_large")

    assert (answer.status, len(gateway.provider.requests)) == (400, 2)


async def test_code_is_completed_once_where_a_server_gives_no_more(
    start_gateway: StartGateway, provider: ScriptedProvider
) -> None:
    """llama.cpp says it with 500."""
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    provider.fail_with(500, {"error": {"code": 500, "message": "Only one completion choice is allowed"}}, times=1)
    cursor = {"file_name": "a.py", "content_above_cursor": "def f", "content_below_cursor": ""}
    own = {"model_provider": "litellm", "model_name": "codestral", "model_endpoint": f"{provider.url}/v1"}
    body = {"prompt_version": 2, "current_file": cursor, "choices_count": 3, **own}

    answer = await gateway.post(
        "/v2/code/completions", json=body, token=gateway.token(unit_primitives=["complete_code"])
    )

    assert (answer.status, len(answer.json()["choices"])) == (200, 1)
    assert [request.json().get("n") for request in provider.requests] == [3, None]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "System role not supported"),
        (400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
        (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
        (500, "Only user, assistant and tool roles are supported, got system. at row 189, column 164"),
        (400, "Only user and assistant roles are supported!"),
        (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
    ],
)
async def test_a_template_without_system_turns_is_told_in_the_users(
    start_gateway: StartGateway, provider: ScriptedProvider, status: int, text: str
) -> None:
    """Gemma, of which GitLab knows no family, and Mistral's templates."""
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    provider.fail_with(status, refusal(text), times=1)
    wish = {"provider": "openai", "name": "general", "endpoint": f"{provider.url}/v1"}
    asked = {"inputs": {"input": "why", "selected_text": "x = 1"}, "model_metadata": wish}

    answers = [
        await gateway.post(
            "/v1/prompts/chat/explain_code", json=asked, token=gateway.token(unit_primitives=["explain_code"])
        )
        for _ in range(2)
    ]

    assert [answer.status for answer in answers] == [200, 200]
    first, *later = [request.json()["messages"] for request in provider.requests]
    assert [[row["role"] for row in rows] for rows in (first, *later)] == [["system", "user"], ["user"], ["user"]]
    assert first[0]["content"] in later[0][0]["content"]


VLLMS = (
    "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 8192 tokens "
    "and your request has 6000 input tokens (4096 > 8192 - 6000)."
)
TGIS = (
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192. Given: 6000 `inputs` tokens and 4096 "
    "`max_new_tokens`"
)


@pytest.mark.parametrize(("status", "text"), [(400, VLLMS), (422, TGIS)])
async def test_a_feature_asks_for_as_much_as_its_prompt_leaves_of_the_window(
    start_gateway: StartGateway, provider: ScriptedProvider, status: int, text: str
) -> None:
    """A server of one's own is seldom started with all that its model reads."""
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    provider.fail_with(status, refusal(text), times=1)
    cursor = {"file_name": "a.py", "content_above_cursor": "def f", "content_below_cursor": ""}
    own = {"model_provider": "litellm", "model_name": "llama3", "model_endpoint": f"{provider.url}/v1"}
    body = {"prompt_version": 2, "prompt": "Write it", "current_file": cursor, **own}

    answers = [
        await gateway.post("/v2/code/generations", json=body, token=gateway.token(unit_primitives=["generate_code"]))
        for _ in range(2)
    ]

    assert [answer.status for answer in answers] == [200, 200]
    # Another prompt leaves another room.
    assert [request.json()["max_tokens"] for request in provider.requests] == [4096, 2192, 4096]


async def test_where_a_prompt_leaves_no_room_the_refusal_stands(
    start_gateway: StartGateway, provider: ScriptedProvider
) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    provider.fail_with(400, refusal(VLLMS.replace("6000", "8190")))
    wish = {"provider": "openai", "name": "general", "endpoint": f"{provider.url}/v1"}
    asked = {"inputs": {"input": "why", "selected_text": "x = 1"}, "model_metadata": wish}

    answer = await gateway.post(
        "/v1/prompts/chat/explain_code", json=asked, token=gateway.token(unit_primitives=["explain_code"])
    )

    assert (answer.status, len(provider.requests)) == (421, 1)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (422, "Input validation error: `temperature` must be strictly positive"),
        (500, "`temperature` (=0.0) has to be a strictly positive float, otherwise your next token scores will be"),
    ],
)
async def test_a_server_that_knows_no_greedy_temperature_gets_one_close_by(
    start_gateway: StartGateway, provider: ScriptedProvider, status: int, text: str
) -> None:
    """Hugging Face's transformers behind KAITO and others; every completion asks for 0."""
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    provider.fail_with(status, {"error": text, "error_type": "validation"}, times=1)
    cursor = {"file_name": "a.py", "content_above_cursor": "def f", "content_below_cursor": ""}
    own = {"model_provider": "litellm", "model_name": "codestral", "model_endpoint": f"{provider.url}/v1"}
    body = {"prompt_version": 2, "current_file": cursor, **own}

    answers = [
        await gateway.post("/v2/code/completions", json=body, token=gateway.token(unit_primitives=["complete_code"]))
        for _ in range(2)
    ]

    assert [answer.status for answer in answers] == [200, 200]
    assert [request.json()["temperature"] for request in provider.requests] == [0, 0.01, 0.01]


@pytest.mark.parametrize(
    "text",
    [
        "This model only support stream mode, please enable the stream parameter to access the model. ",
        "parameter.enable_thinking must be set to false for non-streaming calls",
    ],
)
async def test_a_model_that_only_streams_answers_who_wants_one_answer(
    start_gateway: StartGateway, provider: ScriptedProvider, text: str
) -> None:
    """Qwen's models that think, at DashScope."""
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    provider.fail_with(400, refusal(text), times=1)
    provider.answer_with(text="It is one.")
    wish = {"provider": "openai", "name": "qwen", "endpoint": f"{provider.url}/v1"}
    asked = {"inputs": {"input": "why", "selected_text": "x = 1"}, "model_metadata": wish}

    answers = [
        await gateway.post(
            "/v1/prompts/chat/explain_code", json=asked, token=gateway.token(unit_primitives=["explain_code"])
        )
        for _ in range(2)
    ]

    assert [(answer.status, answer.json()) for answer in answers] == [(200, "It is one.")] * 2
    assert [request.json().get("stream", False) for request in provider.requests] == [False, True, True]
    assert [(each["input_tokens"], each["status"]) for each in gateway.usage()] == [(25, "completed")] * 2


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
        (
            500,
            "After the optional system message, conversation roles must alternate user and assistant roles except for",
        ),
        (400, "deepseek-reasoner does not support successive user or assistant messages (messages[1] and messages[2])"),
    ],
)
async def test_what_is_said_in_a_row_is_one_turn_where_turns_must_alternate(
    gateway: RunningGateway, status: int, text: str
) -> None:
    turns = [
        {"role": "user", "content": "One."},
        {"role": "user", "content": "Two."},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Three."},
    ]
    gateway.provider.fail_with(status, refusal(text), times=1)

    asked = [await ask(gateway, MESSAGES, "acme_large", messages=turns, system="Be brief.") for _ in range(2)]

    assert [(each.status, each.header("x-torana-dropped")) for each in asked] == [(200, None)] * 2
    first, *later = [[row["role"] for row in request.json()["messages"]] for request in gateway.provider.requests]
    assert first == ["system", "user", "user", "assistant", "user"]
    assert later == [["system", "user", "assistant", "user"]] * 2
    assert gateway.provider.requests[-1].json()["messages"][1]["content"] == "One.\n\nTwo."


async def test_a_server_that_finds_fault_with_ever_less_is_not_asked_for_ever(gateway: RunningGateway) -> None:
    for limit in range(30_000, 20_000, -100):
        gateway.provider.fail_with(400, refusal(f"This model supports at most {limit} completion tokens."), times=1)

    answer = await ask(gateway, MESSAGES, "acme_large", max_tokens=32000)

    assert (answer.status, len(gateway.provider.requests)) == (400, 9)
