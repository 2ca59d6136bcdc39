"""Models on servers that the client names: which call goes where, with what, and what is refused (contract 10)."""

import json
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import ANTHROPIC_KEY, OPENAI_KEY, RunningGateway
from tests.support.http_client import Answer
from tests.support.http_server import Request
from tests.support.provider import ScriptedProvider

one_gateway = pytest.mark.asyncio(loop_scope="session")

V2, V2_GENERATIONS = "/v2/code/completions", "/v2/code/generations"
V3, V4 = "/v3/code/completions", "/v4/code/suggestions"
CHAT, PROMPTS = "/v2/chat/agent", "/v1/prompts/"
SCOPES = ("complete_code", "generate_code", "duo_chat", "explain_code")
ON = {"AIGW_CUSTOM_MODELS__ENABLED": "true"}
FILE = {"file_name": "app.py", "content_above_cursor": "def add(", "content_below_cursor": "\n    return x\n"}
EXPLAIN = {"input": "Why?", "selected_text": "x = 1", "file_content": "", "language_info": ""}
CODE_INPUTS = {"prefix": "def add(", "suffix": "\n    return x\n", "file_name": "app.py", "language": "python"}


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway(env=ON)


@pytest.fixture
def endpoint(provider: ScriptedProvider) -> str:
    return f"{provider.url}/own/v1"


@pytest.fixture
def server(shared: RunningGateway) -> str:
    """The endpoint of a client's own server, beside the shared gateway."""
    return f"{shared.provider.url}/own/v1"


async def ask(gateway: RunningGateway, path: str, asked: Any) -> Answer:
    return await gateway.post(path, json=asked, token=gateway.token(unit_primitives=SCOPES))


def metadata(endpoint: str, name: str = "mistral", **members: Any) -> dict[str, Any]:
    return {"provider": "openai", "name": name, "endpoint": endpoint, "api_key": "", **members}


def flat(endpoint: str, name: str, **members: Any) -> dict[str, Any]:
    """A v2 request, whose model members are flat."""
    own = {"model_provider": "litellm", "model_name": name, "model_endpoint": endpoint}
    return {"prompt_version": 2, "current_file": FILE, **own, **members}


def components(asked: dict[str, Any], kind: str = "completion", **payload: Any) -> dict[str, Any]:
    return {
        "prompt_components": [{"type": f"code_editor_{kind}", "payload": {**FILE, **payload}}],
        "model_metadata": asked,
    }


def prompt(asked: dict[str, Any], inputs: dict[str, Any] = EXPLAIN, **members: Any) -> dict[str, Any]:
    return {"inputs": inputs, "model_metadata": asked, **members}


def question(asked: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}], "model_metadata": asked}


def sent(gateway: RunningGateway) -> Request:
    (request,) = gateway.provider.requests
    return request


def where(request: Request) -> tuple[str, str]:
    return request.path, request.json()["model"]


# --- From the identifier to the model (contract 10.2, rows 1-3) ---


@pytest.mark.parametrize(
    ("identifier", "model"),
    [
        ("custom_openai/Mistral-7B-Instruct-v0.3", "Mistral-7B-Instruct-v0.3"),
        ("openai/gpt-x", "gpt-x"),
        ("hosted_vllm/org/model", "org/model"),
        ("ollama/llama3:8b", "llama3:8b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("plain-name", "plain-name"),
        ("", "llama3"),
        (None, "llama3"),
        ("custom_openai/", "llama3"),
    ],
)
@one_gateway
async def test_the_identifier_names_the_model(
    shared: RunningGateway, server: str, identifier: str | None, model: str
) -> None:
    await ask(shared, f"{PROMPTS}chat/explain_code", prompt(metadata(server, "llama3", identifier=identifier)))

    assert where(sent(shared)) == ("/own/v1/chat/completions", model)


@one_gateway
async def test_an_anthropic_identifier_speaks_messages_with_the_clients_key(
    shared: RunningGateway, server: str
) -> None:
    own = metadata(server, "claude_3", identifier="anthropic/claude-x", api_key="client-key")

    answer = await ask(shared, f"{PROMPTS}chat/explain_code", prompt(own))

    assert answer.status == 200
    assert where(sent(shared)) == ("/own/v1/messages", "claude-x")
    assert sent(shared).header("x-api-key") == "client-key"


@pytest.mark.parametrize("identifier", ["bedrock/some.model-v1", "vertex_ai/some-model"])
@one_gateway
async def test_a_cloud_model_outside_the_catalogue_is_422_whatever_endpoint_stands_beside_it(
    shared: RunningGateway, server: str, identifier: str
) -> None:
    answer = await ask(shared, f"{PROMPTS}chat/explain_code", prompt(metadata(server, identifier=identifier)))

    assert answer.status == 422
    assert shared.provider.requests == []


@pytest.mark.parametrize("slash", ["", "/"])
@one_gateway
async def test_one_slash_at_the_endpoints_end_means_nothing(shared: RunningGateway, server: str, slash: str) -> None:
    await ask(shared, f"{PROMPTS}chat/explain_code", prompt(metadata(f"{server}{slash}", "llama3")))

    assert sent(shared).path == "/own/v1/chat/completions"


# --- Which API (contract 10.2, row 6) ---

MARKED = ["codegemma", "codellama", "codestral", "mistral", "qwen2p5-coder-7b", "deepseekcoder"]
OTHERS = ["llama3", "gpt", "claude_3", "mixtral", "qwen", "general", "a_family_to_come"]
IDENTIFIER = "custom_openai/x"
TEXT, MESSAGES = "/own/v1/completions", "/own/v1/chat/completions"


@pytest.mark.parametrize("family", MARKED)
@pytest.mark.parametrize("identifier", [None, IDENTIFIER])
@pytest.mark.parametrize("path", [V2, V3, V4, f"{PROMPTS}code_suggestions/completions"])
@one_gateway
async def test_code_completions_of_marked_families_are_text_completions(
    shared: RunningGateway, server: str, family: str, identifier: str | None, path: str
) -> None:
    own = metadata(server, family, identifier=identifier)
    asked = {
        V2: flat(server, family, model_identifier=identifier),
        V3: components(own),
        V4: components(own),
    }.get(path) or prompt(own, CODE_INPUTS)

    answer = await ask(shared, path, asked)

    assert answer.status == 200
    assert where(sent(shared)) == (TEXT, "x" if identifier else family)
    assert sent(shared).json()["prompt"] == MARKS[family]


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize(
    ("path", "identifier", "expected"),
    [
        (V2, None, TEXT),
        (V2, IDENTIFIER, MESSAGES),
        (V3, None, MESSAGES),
        (V3, IDENTIFIER, MESSAGES),
        (V4, None, MESSAGES),
        (f"{PROMPTS}code_suggestions/completions", None, MESSAGES),
        (f"{PROMPTS}code_suggestions/completions", IDENTIFIER, MESSAGES),
    ],
)
@one_gateway
async def test_code_completions_of_other_families_are_chats_but_for_v2_without_identifier(
    shared: RunningGateway, server: str, family: str, path: str, identifier: str | None, expected: str
) -> None:
    own = metadata(server, family, identifier=identifier)
    asked = {
        V2: flat(server, family, model_identifier=identifier),
        V3: components(own),
        V4: components(own),
    }.get(path) or prompt(own, CODE_INPUTS)

    answer = await ask(shared, path, asked)

    assert (answer.status, sent(shared).path) == (200, expected)
    told = sent(shared).json()
    text = told["prompt"] if expected == TEXT else json.dumps(told["messages"])
    assert "def add(" in text
    assert "suffix" not in told


@pytest.mark.parametrize(
    ("path", "make"),
    [
        (V2, lambda own: flat(own["endpoint"], "llama3", model_identifier=own["identifier"])),
        (V3, components),
        (V3, lambda own: components(own, "generation")),
        (
            V2_GENERATIONS,
            lambda own: flat(
                own["endpoint"], "llama3", prompt="Write a whole parser.", model_identifier=own["identifier"]
            ),
        ),
        (f"{PROMPTS}chat/explain_code", prompt),
        (CHAT, question),
    ],
)
@one_gateway
async def test_the_prefix_for_text_completions_always_holds(
    shared: RunningGateway, server: str, path: str, make: Any
) -> None:
    own = metadata(server, "llama3", identifier="text-completion-openai/x")

    answer = await ask(shared, path, make(own))

    assert answer.status == 200
    assert where(sent(shared)) == (TEXT, "x")
    assert len(sent(shared).json()["prompt"]) > 20  # the whole instruction, not just the code before the cursor


@pytest.mark.parametrize("vendor", ["litellm", "codestral"])
@pytest.mark.parametrize("family", ["mistral", "llama3"])
@one_gateway
async def test_a_prompt_of_the_clients_own_is_one_user_turn(
    shared: RunningGateway, server: str, vendor: str, family: str
) -> None:
    asked = flat(server, family, model_provider=vendor, prompt="[INST] complete this [/INST]")

    answer = await ask(shared, V2, asked)

    assert sent(shared).path == MESSAGES
    assert sent(shared).json()["messages"] == [{"role": "user", "content": "[INST] complete this [/INST]"}]
    assert (answer.json()["model"]["engine"], answer.json()["model"]["name"]) == ("openai", family)


@one_gateway
async def test_a_prompt_of_the_clients_own_is_what_text_completions_get_too(
    shared: RunningGateway, server: str
) -> None:
    await ask(
        shared,
        V2,
        flat(server, "codestral", prompt="carry on", model_identifier="text-completion-openai/x"),
    )

    assert (sent(shared).path, sent(shared).json()["prompt"]) == (TEXT, "carry on")


@pytest.mark.parametrize("family", ["mistral", "codestral", "llama3"])
@pytest.mark.parametrize(
    ("path", "make"),
    [
        (V2_GENERATIONS, lambda own: flat(own["endpoint"], own["name"], prompt="do it")),
        (V3, lambda own: components(own, "generation")),
        (CHAT, question),
        (f"{PROMPTS}chat/explain_code", prompt),
    ],
)
@one_gateway
async def test_everything_else_is_a_chat(
    shared: RunningGateway, server: str, family: str, path: str, make: Any
) -> None:
    answer = await ask(shared, path, make(metadata(server, family)))

    assert (answer.status, where(sent(shared))) == (200, (MESSAGES, family))


@one_gateway
async def test_an_answer_without_a_prompt_is_the_registrys(shared: RunningGateway, server: str) -> None:
    answer = await ask(shared, V2, flat(server, "codestral"))

    model = answer.json()["model"]
    assert (model["engine"], model["name"]) == ("agent", "Completion default")


# --- Fill-in-the-middle (contract 10.4) ---

MARKS = {
    "codegemma": "<|fim_prefix|>def add(<|fim_suffix|>\n    return x\n<|fim_middle|>",
    "codellama": "<PRE> def add( <SUF> \n    return x\n <MID>",
    "codestral": "[SUFFIX]\n    return x\n[PREFIX]def add(",
    "mistral": "[SUFFIX]\n    return x\n[PREFIX]def add(",
    "qwen2p5-coder-7b": "<|fim_prefix|>def add(<|fim_suffix|>\n    return x\n<|fim_middle|>",
    "deepseekcoder": "<｜fim▁begin｜>def add(<｜fim▁hole｜>\n    return x\n<｜fim▁end｜>",
}
STOPS = {
    "codegemma": {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
    "codellama": {"<PRE>", "<SUF>", "<MID>"},
    "codestral": {"[PREFIX]", "[SUFFIX]"},
    "mistral": {"[PREFIX]", "[SUFFIX]"},
    "qwen2p5-coder-7b": {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
    "deepseekcoder": {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},
}


@pytest.mark.parametrize("family", MARKED)
@one_gateway
async def test_each_family_stops_at_its_own_markers(shared: RunningGateway, server: str, family: str) -> None:
    await ask(shared, V2, flat(server, family))

    asked = sent(shared).json()
    assert STOPS[family] <= set(asked["stop"])
    assert len(asked["stop"]) <= 4  # OpenAI and its like refuse more
    assert asked["max_tokens"] == 128


@one_gateway
async def test_attached_context_stands_before_the_prefix(shared: RunningGateway, server: str) -> None:
    context = [
        {"type": "file", "name": "a.py", "content": "A = 1"},
        {"type": "file", "name": "b.py", "content": "B = 2"},
    ]

    await ask(shared, V2, flat(server, "codegemma", context=context))

    assert sent(shared).json()["prompt"].startswith("<|fim_prefix|>A = 1\nB = 2\ndef add(<|fim_suffix|>")


REPEATING = "def add(a):\n    return x\n"


@pytest.mark.parametrize("family", ["codestral", "llama3"])
@pytest.mark.parametrize("path", [V2, V3])
@one_gateway
async def test_answers_come_back_byte_for_byte(shared: RunningGateway, server: str, family: str, path: str) -> None:
    shared.provider.answer_with(text=REPEATING)
    asked = flat(server, family) if path == V2 else components(metadata(server, family))

    answer = await ask(shared, path, asked)

    assert answer.json()["choices"][0]["text"] == REPEATING


# --- Keys and headers ---


def credentials(request: Request) -> set[str]:
    return {value.decode() for name, value in request.headers if name.lower() in (b"authorization", b"x-api-key")}


@pytest.mark.parametrize(
    ("key", "sent_key"),
    [("client-key", "client-key"), (" client-key\n", "client-key"), ("", None), ("\n", None), (None, None)],
)
@pytest.mark.parametrize("family", ["codestral", "llama3"])
@one_gateway
async def test_the_clients_server_gets_the_clients_key_or_a_placeholder_and_never_ours(
    shared: RunningGateway, server: str, family: str, key: str | None, sent_key: str | None
) -> None:
    await ask(shared, V3, components(metadata(server, family, api_key=key)))

    (bearer,) = credentials(sent(shared))
    assert bearer.startswith("Bearer ")
    assert len(bearer) > len("Bearer ")
    if sent_key:
        assert bearer == f"Bearer {sent_key}"
    everything = repr(sent(shared).headers) + sent(shared).body.decode()
    assert ANTHROPIC_KEY not in everything
    assert OPENAI_KEY not in everything


@pytest.mark.parametrize("identifier", ["anthropic/claude-x", "openai/gpt-x", None])
@one_gateway
async def test_our_keys_never_reach_the_clients_server_whatever_provider_it_claims_to_be(
    shared: RunningGateway, server: str, identifier: str | None
) -> None:
    await ask(shared, CHAT, question(metadata(server, "gpt", identifier=identifier, api_key=None)))

    everything = repr(sent(shared).headers)
    assert ANTHROPIC_KEY not in everything
    assert OPENAI_KEY not in everything


async def test_the_operators_extra_headers_go_to_clients_servers_only(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={**ON, "AIGW_CUSTOM_MODELS__EXTRA_HEADERS": '{"X-Team": "blue"}'})

    await ask(gateway, CHAT, question(metadata(f"{gateway.provider.url}/own/v1")))
    await ask(gateway, CHAT, {"messages": [{"role": "user", "content": "Hi"}]})

    own, ours = gateway.provider.requests
    assert (own.header("x-team"), ours.header("x-team")) == ("blue", None)


# --- Streaming ---


@pytest.mark.parametrize("is_off", [False, True])
@pytest.mark.parametrize("path", [V2, V3, V4, f"{PROMPTS}chat/explain_code", "/v2/prompts/chat/explain_code", CHAT])
async def test_a_client_gets_its_stream_also_where_its_server_is_asked_without_one(
    start_gateway: StartGateway, path: str, is_off: bool
) -> None:
    gateway = await start_gateway(env={**ON, "AIGW_CUSTOM_MODELS__DISABLE_STREAMING": str(is_off).lower()})
    gateway.provider.answer_with(pieces=["Final Answer: ", "forty", "-two"])
    endpoint = f"{gateway.provider.url}/own/v1"
    own = metadata(endpoint, "llama3")
    asked = {
        V2: flat(endpoint, "llama3", stream=True),
        V3: components(own, stream=True),
        V4: components(own, stream=True),
        CHAT: question(own),
    }.get(path) or prompt(own, stream=True)

    answer = await ask(gateway, path, asked)

    assert (answer.status, answer.is_whole) == (200, True)
    assert answer.header("transfer-encoding") == "chunked"
    assert "forty" in answer.text
    assert bool(sent(gateway).json().get("stream")) is not is_off


async def test_the_switch_leaves_our_own_models_alone(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={**ON, "AIGW_CUSTOM_MODELS__DISABLE_STREAMING": "true"})

    await ask(gateway, CHAT, {"messages": [{"role": "user", "content": "Hi"}]})

    assert sent(gateway).json()["stream"] is True


# --- What is refused ---

EVERYWHERE = [
    (V2, lambda own: flat(own["endpoint"], "mistral", model_api_key=own["api_key"])),
    (V2_GENERATIONS, lambda own: flat(own["endpoint"], "mistral", prompt="p", model_api_key=own["api_key"])),
    (V3, components),
    (V4, components),
    (CHAT, question),
    (f"{PROMPTS}chat/explain_code", prompt),
    ("/v2/prompts/chat/explain_code", prompt),
]


@pytest.mark.parametrize("members", [{"api_key": ""}, {"endpoint": "", "api_key": "k"}, {"api_key": "k"}])
async def test_endpoints_and_keys_are_400_everywhere_while_custom_models_are_off(
    start_gateway: StartGateway, members: dict[str, str]
) -> None:
    gateway = await start_gateway()
    own = metadata(f"{gateway.provider.url}/v1") | members

    answers = [await ask(gateway, path, make(own)) for path, make in EVERYWHERE]

    told = {(answer.status, answer.json()["detail"]) for answer in answers}
    assert told == {(400, "Custom models are disabled")}
    assert gateway.provider.requests == []


@pytest.mark.parametrize(("path", "make"), EVERYWHERE)
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://[fe80::1]/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://metadata.google.internal/v1",
        "http://0.0.0.0:1/v1",
        "ftp://127.0.0.1/v1",
        "file:///etc/passwd",
        "no url",
        "http://user:pass@127.0.0.1/v1",
        "http://127.0.0.1:99999/v1",
    ],
)
@one_gateway
async def test_endpoints_that_are_none_or_never_allowed_are_422(
    shared: RunningGateway, path: str, make: Any, url: str
) -> None:
    answer = await ask(shared, path, make(metadata(url)))

    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"][-1] in ("endpoint", "model_endpoint")
    assert url not in answer.text


@pytest.mark.parametrize(
    "members",
    [
        {"provider": None},
        {"provider": 7},
        {"name": ["mistral"]},
        {"identifier": {}},
        {"name": "x" * 256},
        {"identifier": "x" * 1001},
        {"api_key": "x" * 2001},
        {"endpoint": "http://127.0.0.1/" + "x" * 255},
        {"endpoint": 7},
    ],
)
@pytest.mark.parametrize(("path", "make"), EVERYWHERE[2:])
@one_gateway
async def test_invalid_metadata_beside_an_endpoint_is_422_and_reaches_no_model(
    shared: RunningGateway, server: str, path: str, make: Any, members: dict[str, Any]
) -> None:
    answer = await ask(shared, path, make(metadata(server) | members))

    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["body", "model_metadata"]
    assert shared.provider.requests == []


@pytest.mark.parametrize(
    ("path", "code"),
    [("/own/v1", ""), ("/own/v1/deep", ""), ("/own/v10", "endpoint_not_allowed"), ("/own/../x", "request_invalid")],
)
async def test_the_operators_list_bounds_the_endpoints(
    start_gateway: StartGateway, provider: ScriptedProvider, path: str, code: str
) -> None:
    gateway = await start_gateway(env={**ON, "AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS": f"{provider.url}/own/v1"})

    answer = await ask(gateway, CHAT, question(metadata(f"{provider.url}{path}", "llama3")))

    assert answer.status == (422 if code else 200)
    assert not code or answer.refusal.code == code
    assert len(provider.requests) == (not code)


@one_gateway
async def test_an_address_where_nothing_is_says_what_may_be_wrong_with_it(shared: RunningGateway, server: str) -> None:
    shared.provider.answer_with(status=404, body=b'{"detail":"Not Found"}')

    answer = await ask(shared, f"{PROMPTS}model_configuration%2Fcheck", prompt(metadata(server)))

    assert (answer.status, answer.json()["detail"]) == (421, "404: Not Found")
    assert answer.refusal.code == "provider_not_found"
    assert "/v1" in answer.refusal.remedy
    assert "torana models discover" in answer.refusal.remedy


@one_gateway
async def test_a_redirect_of_the_clients_server_is_not_followed(shared: RunningGateway, server: str) -> None:
    shared.provider.answer_with(status=302, headers={"Location": "http://169.254.169.254/"})

    answer = await ask(shared, f"{PROMPTS}chat/explain_code", prompt(metadata(server)))

    assert (answer.status, answer.json()["detail"]) == (421, "302: Found")
    assert len(shared.provider.requests) == 1


async def test_a_family_that_nobody_knows_is_warned_of_once(gateway: RunningGateway, endpoint: str) -> None:
    for _ in range(2):
        await ask(gateway, V3, components(metadata(endpoint, "a_family_to_come")))

    warnings = [line for line in gateway.log.lines if line.get("family") == "a_family_to_come"]
    assert len(warnings) == 1


# --- The administrators' check (contract 10.5) ---


@pytest.mark.parametrize(
    ("status", "expected"), [(200, (200, None)), (404, (421, "404: Not Found")), (401, (421, "401: Unauthorized"))]
)
@one_gateway
async def test_the_connection_check_tells_what_the_clients_server_said(
    shared: RunningGateway, server: str, status: int, expected: tuple[int, str | None]
) -> None:
    shared.provider.answer_with(status=status)
    asked = {"stream": False, "inputs": {}, "model_metadata": metadata(server)}

    answer = await ask(shared, f"{PROMPTS}model_configuration%2Fcheck", asked)

    found = answer.json()
    assert (answer.status, found["detail"] if isinstance(found, dict) else None) == expected
    assert sent(shared).path.startswith("/own/v1/")


async def test_the_connection_check_is_421_for_a_server_that_is_not_there(
    gateway: RunningGateway, provider: ScriptedProvider
) -> None:
    provider.server.stop_listening()
    asked = {"stream": False, "inputs": {}, "model_metadata": metadata(f"{provider.url}/v1")}

    answer = await ask(gateway, f"{PROMPTS}model_configuration%2Fcheck", asked)

    assert (answer.status, answer.json()["detail"]) == (421, "503: Service Unavailable")


@pytest.mark.parametrize("identifier", ["", "custom_openai/"])
async def test_a_server_of_ones_own_is_asked_for_a_model_by_name(
    gateway: RunningGateway, endpoint: str, identifier: str
) -> None:
    asked = {"provider": "openai", "endpoint": endpoint, "name": None, "identifier": identifier}

    answer = await ask(gateway, f"{PROMPTS}chat/explain_code", {"inputs": EXPLAIN, "model_metadata": asked})

    (row,) = answer.json()["detail"]
    assert (answer.status, row["loc"], row["type"]) == (422, ["body", "model_metadata", "name"], "missing")
    assert gateway.provider.requests == []


async def test_a_clients_server_that_rests_is_no_alarm_of_the_operators(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={**ON, "AIGW_ROUTING__FAILURES_TO_REST": "1", "AIGW_ROUTING__TRIES": "1"})
    asked = prompt(metadata(f"{gateway.provider.url}/own/v1", "llama3"))
    gateway.provider.fail_with(500)

    for _ in range(3):
        await ask(gateway, f"{PROMPTS}chat/explain_code", asked)

    rested = [line for line in gateway.log.lines if line["message"] == "a deployment rests after failures"]
    assert [line["deployment"] for line in rested] == ["own"]
    assert "torana_deployment_state{" not in (await gateway.monitoring("/metrics")).text
