"""Where a client can make the gateway call, and what it never gets there (promises 3.3, contract 10.2 and 10.3)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.issuer import FakeIssuer
from tests.support.provider import ScriptedProvider

from torana.routing.own_servers import KNOWN_PROVIDERS

ON = {"AIGW_CUSTOM_MODELS__ENABLED": "true"}
SCOPES = ("complete_code", "generate_code", "duo_chat", "explain_code", "generate_embeddings_codebase")
FILE = {"file_name": "app.py", "content_above_cursor": "def add(", "content_below_cursor": "\n    return x\n"}
EXPLAIN = {"input": "Why?", "selected_text": "x = 1"}

OURS = {
    name: f"canary-{number}-of-ours"
    for number, name in enumerate(
        (
            "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "AZURE_API_KEY", "AZURE_OPENAI_API_KEY", "GEMINI_API_KEY",
            "GOOGLE_API_KEY", "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
            "MISTRAL_API_KEY", "FIREWORKS_API_KEY", "GROQ_API_KEY", "TOGETHER_API_KEY", "DEEPSEEK_API_KEY",
            "OPENROUTER_API_KEY", "OLLAMA_API_KEY", "VLLM_API_KEY", "LITELLM_API_KEY", "LLAMA_CPP_API_KEY",
        )
    )
}  # fmt: skip
"""Every key that the operator can have."""


def metadata(own: dict[str, str]) -> dict[str, Any]:
    return {"provider": "openai", "name": "llama3", **own}


def flat(own: dict[str, str]) -> dict[str, Any]:
    members = {
        "model_endpoint": own["endpoint"], "model_api_key": own.get("api_key", ""),
        "model_identifier": own.get("identifier", ""),
    }  # fmt: skip
    return {"prompt_version": 2, "current_file": FILE, "model_provider": "litellm", "model_name": "mistral", **members}


def chat_v1(own: dict[str, str]) -> dict[str, Any]:
    return {
        "prompt_components": [
            {
                "type": "prompt",
                "metadata": {"source": "s", "version": "1"},
                "payload": {
                    "content": "Hi", "provider": "litellm", "model": "mistral", "model_endpoint": own["endpoint"],
                    "model_api_key": own.get("api_key", ""), "model_identifier": own.get("identifier", ""),
                },
            }
        ]
    }  # fmt: skip


def components(own: dict[str, str]) -> dict[str, Any]:
    component = {"type": "code_editor_completion", "payload": FILE}
    return {"prompt_components": [component], "model_metadata": metadata(own)}


WAYS: list[tuple[str, Any]] = [
    ("/v2/code/completions", flat),
    ("/v2/completions", flat),
    ("/v2/code/generations", lambda own: {**flat(own), "prompt": "p"}),
    ("/v3/code/completions", components),
    ("/v4/code/suggestions", components),
    ("/v2/chat/agent", lambda own: {"messages": [{"role": "user", "content": "Hi"}], "model_metadata": metadata(own)}),
    ("/v1/prompts/chat/explain_code", lambda own: {"inputs": EXPLAIN, "model_metadata": metadata(own)}),
    ("/v1/prompts/model_configuration%2Fcheck", lambda own: {"inputs": {}, "model_metadata": metadata(own)}),
    ("/v2/prompts/chat/explain_code", lambda own: {"inputs": EXPLAIN, "model_metadata": metadata(own)}),
    ("/v1/chat/agent", chat_v1),
    ("/ai/v1/chat/agent", chat_v1),
    (
        "/v1/embeddings/code_embeddings",
        lambda own: {
            "contents": ["x = 1"],
            "model_metadata": {**metadata(own), "provider": "litellm", "name": "embedding"},
        },
    ),
]
"""Every path on which a client can name a server of its own, aliases included."""


@pytest.fixture
async def canary() -> AsyncIterator[ScriptedProvider]:
    """A server that nobody is to reach, or that is to learn nothing."""
    async with ScriptedProvider() as provider:
        yield provider


async def ask(gateway: RunningGateway, path: str, asked: Any) -> Answer:
    return await gateway.post(path, json=asked, token=gateway.token(unit_primitives=SCOPES))


async def test_no_key_of_ours_reaches_a_clients_server_whatever_it_claims_to_be(
    start_gateway: StartGateway, canary: ScriptedProvider
) -> None:
    gateway = await start_gateway(env={**ON, **OURS, "AWS_REGION": "eu-west-1", "AZURE_API_BASE": canary.url + "/ours"})
    endpoints = [f"{canary.url}/v1", f"{canary.url}/openai", f"{canary.url}/openai/deployments/d"]

    for path, make in WAYS:
        for number, provider in enumerate(sorted(KNOWN_PROVIDERS)):
            identifier = f"{provider}/m"
            for own in ({"api_key": "clients-key"}, {"api_key": ""}, {}):
                await ask(gateway, path, make({**own, "identifier": identifier, "endpoint": endpoints[number % 3]}))

    assert len(canary.requests) > 200
    for request in canary.requests:
        seen = b"\n".join([request.target, request.body, *(value for pair in request.headers for value in pair)])
        assert b"of-ours" not in seen
        assert b"aws4" not in seen.lower()  # nor a signature made with one
        assert not request.path.startswith("/ours")


async def test_clouds_ignore_the_endpoint_and_serve_the_catalogue_alone(
    start_gateway: StartGateway, canary: ScriptedProvider, provider: ScriptedProvider
) -> None:
    env = {**ON, **OURS, "AWS_REGION": "eu-west-1", "AWS_BEDROCK_RUNTIME_ENDPOINT": provider.url}
    gateway = await start_gateway(env=env)
    identifiers = [
        "bedrock/m",
        "bedrock/../x",
        "bedrock/%2e%2e",
        "bedrock//x",
        "vertex_ai/m",
        "vertex_ai/a:b?c",
        "bedrock/",
    ]

    for path, make in WAYS:
        for identifier in identifiers:
            answer = await ask(gateway, path, make({"identifier": identifier, "endpoint": f"{canary.url}/v1"}))
            assert answer.status == 422, (path, identifier)

    assert canary.requests == provider.requests == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://2852039166/v1",
        "http://0xa9fea9fe/v1",
        "http://0251.0376.0251.0376/v1",
        "http://169.254.43518/v1",
        "http://169.254.169.254./v1",
        "http://[::ffff:a9fe:a9fe]/v1",
        "http://[64:ff9b::a9fe:a9fe]/v1",
        "http://[2002:a9fe:a9fe::1]/v1",
        "http://[2001:0:a9fe:a9fe::1]/v1",
        "http://[2001:db8::5efe:a9fe:a9fe]/v1",
        "http://[2001:db8::200:5efe:a9fe:a9fe]/v1",
        "http://[fd00:ec2::23]/v1",
        "http://metadata.google.internal./v1",
        "http://169。254。169。254/v1",
        "http://127.0.0.1:80\\@169.254.169.254/v1",
        "http://127.0.0.1#@169.254.169.254/v1",
        "http://169.254.169.254?@127.0.0.1/v1",
        "HTTP://METADATA/v1",
    ],
)
async def test_no_spelling_of_a_forbidden_address_is_an_endpoint(start_gateway: StartGateway, endpoint: str) -> None:
    gateway = await start_gateway(env=ON)

    for path, make in WAYS:
        answer = await ask(gateway, path, make({"endpoint": endpoint}))
        assert answer.status == 422, path
        assert endpoint not in answer.text


@pytest.mark.parametrize(
    "walk",
    [
        "{host}/team/v1/../../other", "{host}/team/v1/%2e%2e/other", "{host}/team/v1/%2E%2e%2fother", "{host}/team/v10",
        "{host}/team/v1/..;/other", "{host}/team/v1/%252e%252e/other", "{host}/other", "{host}", "{host}//team/v1",
        "{host}/team/v1?x=/../../other", "{host}/team/v1#/../other", "{host}/TEAM/v1", "https{rest}/team/v1",
        "http://127.0.0.1:{canary}/team/v1", "http://user@127.0.0.1:{port}/team/v1", "http://127.0.0.1:{port}@127.0.0.1:{canary}/team/v1",
        "http://2130706433:{port}/team/v1", "http://localhost:{port}/team/v1", "http://127.0.0.1.:{port}/team/v1",
        "http://127.1:{port}/team/v1", "http://[::ffff:127.0.0.1]:{port}/team/v1",
    ],
)  # fmt: skip
async def test_nothing_leads_around_the_operators_list(
    start_gateway: StartGateway, provider: ScriptedProvider, canary: ScriptedProvider, walk: str
) -> None:
    gateway = await start_gateway(env={**ON, "AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS": f"{provider.url}/team/v1"})
    endpoint = walk.format(
        host=provider.url, rest=provider.url.removeprefix("http"), port=provider.server.port, canary=canary.server.port
    )

    for path, make in WAYS:
        assert (await ask(gateway, path, make({"endpoint": endpoint}))).status == 422, path

    assert provider.connections == canary.connections == 0


@pytest.mark.parametrize("identifier", ["azure/m", "azure/..", "anthropic/m", "openai/m"])
async def test_a_providers_own_ways_stay_below_the_listed_prefix(
    start_gateway: StartGateway, provider: ScriptedProvider, identifier: str
) -> None:
    prefix = f"{provider.url}/team/chat/completions"
    gateway = await start_gateway(env={**ON, "AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS": prefix})

    for path, make in WAYS:
        await ask(gateway, path, make({"endpoint": prefix, "identifier": identifier}))

    assert {request.path.startswith("/team/chat/completions") for request in provider.requests} <= {True}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_of_a_clients_server_is_followed(
    start_gateway: StartGateway, provider: ScriptedProvider, canary: ScriptedProvider, status: int
) -> None:
    gateway = await start_gateway(env=ON)
    provider.answer_with(status=status, headers={"Location": f"{canary.url}/v1/chat/completions"})

    for path, make in WAYS:
        answer = await ask(gateway, path, make({"endpoint": f"{provider.url}/v1"}))
        assert answer.status in (200, 421, 502, 503), path  # 200: the chat's line of error

    assert canary.connections == 0
    assert provider.requests


async def test_no_proxy_of_the_environment_stands_before_a_clients_server(
    start_gateway: StartGateway, provider: ScriptedProvider, canary: ScriptedProvider, issuer: FakeIssuer
) -> None:
    proxies = {"HTTP_PROXY": canary.url, "NO_PROXY": issuer.url.removeprefix("http://")}
    gateway = await start_gateway(env={**ON, **proxies})

    for path, make in WAYS:
        await ask(gateway, path, make({"endpoint": f"{provider.url}/v1"}))

    assert canary.connections == 0
    assert len(provider.requests) == len(WAYS)


async def test_an_endpoint_that_leads_back_to_the_gateway_ends_there(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=ON)

    answer = await ask(
        gateway,
        "/v1/prompts/chat/explain_code",
        {"inputs": EXPLAIN, "model_metadata": metadata({"endpoint": f"{gateway.url}/openai/v1"})},
    )

    assert (answer.status, answer.json()["detail"]) == (421, "508: Loop Detected")


async def test_a_list_that_would_hold_nothing_stops_the_start(start_gateway: StartGateway) -> None:
    from torana.errors import BadSetting

    for prefix in ("models.example.com", "http://h/../x", "http://user@h", "http://h?x"):
        with pytest.raises(BadSetting, match="AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS"):
            await start_gateway(env={**ON, "AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS": prefix})


@pytest.mark.parametrize("prefix", ["http://user:wonderland@h", "http://h/?api_key=wonderland"])
async def test_a_password_in_the_list_is_not_repeated(start_gateway: StartGateway, prefix: str) -> None:
    from torana.errors import BadSetting

    with pytest.raises(BadSetting) as told:
        await start_gateway(env={**ON, "AIGW_CUSTOM_MODELS__ALLOWED_ENDPOINTS": prefix})

    assert "wonderland" not in str(told.value)
