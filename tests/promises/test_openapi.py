"""The OpenAPI document says what the server does: real requests and answers are held against it."""

from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.json_schema import Schemas, with_nulls

from torana.api.openapi_examples import EXAMPLES

PROXY = "ai_gateway_model_provider_proxy"
RIGHTS = (
    "complete_code", "generate_code", "duo_chat", "duo_classic_chat", "explain_code", "documentation_search",
    "generate_embeddings_codebase", "amazon_q_integration", "summarize_text", PROXY,
)  # fmt: skip

FILE = {"file_name": "hello.py", "content_above_cursor": "def hello_world", "content_below_cursor": ""}
CODE = {"current_file": FILE}
COMPONENT = {"prompt_components": [{"type": "code_editor_completion", "payload": FILE}]}
PROMPT = {"inputs": {"input": "why", "selected_text": "x = 1"}}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
METADATA = {"source": "GitLab EE", "version": "18.6.1"}
CHAT_V1 = {
    "prompt_components": [
        {
            "type": "prompt",
            "metadata": METADATA,
            "payload": {"content": "hi", "provider": "anthropic", "model": "claude-3-5-sonnet-20240620"},
        }
    ]
}
X_RAY = {"prompt_components": [{"type": "x_ray_package_file_prompt", "payload": {"prompt": "gem 'rails'"}}]}
SUMMARY = {"prompt_components": [{"type": "summarize_text", "payload": {"content": "a story"}}]}
SEARCH = {"type": "search", "metadata": METADATA, "payload": {"query": "runners"}}
VECTORS = {"model_metadata": {"provider": "gitlab"}, "contents": ["x = 1"]}
SPOKEN = {"model": "chat_default", **CHAT}

CALLS: list[tuple[str, str, dict[str, Any], int]] = [
    ("/v2/code/completions", "", CODE, 200),
    ("/v2/completions", "", CODE, 200),
    ("/v2/code/generations", "", CODE, 200),
    ("/v3/code/completions", "", COMPONENT, 200),
    ("/v4/code/suggestions", "", COMPONENT, 200),
    ("/v2/chat/agent", "", CHAT, 200),
    ("/v1/prompts/{tail}", "chat/explain_code", PROMPT, 200),
    ("/v2/prompts/{tail}", "chat/explain_code", PROMPT, 200),
    ("/v1/chat/{tail}", "agent", CHAT_V1, 200),
    ("/v1/x-ray/libraries", "", X_RAY, 200),
    ("/v1/summarize_text", "", SUMMARY, 200),
    ("/v1/embeddings/code_embeddings", "", VECTORS, 200),
    ("/v1/search/gitlab-docs", "", SEARCH, 400),
    ("/v1/amazon_q/oauth/application/delete", "", {"role_arn": "arn:aws:iam::1:role/q"}, 501),
    ("/v1/amazon_q/oauth/application/verify", "", {"role_arn": "arn:aws:iam::1:role/q", "code": "c"}, 501),
    ("/v1/proxy/openai/{tail}", "v1/chat/completions", {**SPOKEN, "model": "gpt-5.4"}, 500),
    ("/openai/v1/chat/completions", "", SPOKEN, 200),
    ("/openai/v1/responses", "", {"model": "chat_default", "input": "hi"}, 200),
    ("/openai/v1/embeddings", "", {"model": "embeddings_default", "input": "hi"}, 200),
    ("/anthropic/v1/messages", "", {**SPOKEN, "max_tokens": 20}, 200),
    ("/anthropic/v1/messages/count_tokens", "", SPOKEN, 200),
]


@pytest.fixture
async def demo(start_gateway: StartGateway) -> RunningGateway:
    return await start_gateway(
        env={"AIGW_ENVIRONMENT": "development", "ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    )


async def ask(gateway: RunningGateway, path: str, body: Any, rights: tuple[str, ...] = RIGHTS) -> Answer:
    token = gateway.token(unit_primitives=rights)
    return await gateway.post(path, json=body, token=token, headers={"X-Gitlab-Unit-Primitive": PROXY})


def faults(document: dict[str, Any], path: str, answer: Answer, method: str = "post") -> list[str]:
    described = document["paths"][path][method]["responses"]
    content = (described.get(str(answer.status)) or described["default"])["content"]
    media_type = (answer.header("content-type") or "").partition(";")[0]
    if media_type not in content:
        return [f"{path}: {answer.status} as {media_type}"]
    if media_type != "application/json":
        return []
    return list(Schemas(document).faults(answer.json(), content[media_type]["schema"], path))


async def test_answers_and_refusals_are_as_described(demo: RunningGateway) -> None:
    document = (await demo.get("/openapi.json")).json()

    for path, tail, body, status in CALLS:
        url = path.replace("{tail}", tail)
        answer = await ask(demo, url, body)
        assert (path, answer.status, answer.text if answer.status != status else "") == (path, status, "")
        # Whoever asks for a stream, says too little, may not, or is nobody.
        others = [
            await ask(demo, url, {**body, "stream": True}),
            await ask(demo, url, {}),
            await ask(demo, url, body, rights=()),
            await demo.post(url, json=body),
        ]
        assert [fault for each in (answer, *others) for fault in faults(document, path, each)] == []
        if status == 501:  # whatever is asked
            assert "200" not in document["paths"][path]["post"]["responses"]


async def test_null_is_described_where_it_is_read(demo: RunningGateway) -> None:
    document = (await demo.get("/openapi.json")).json()

    for path, tail, body, status in CALLS:
        if path.startswith(("/openai", "/anthropic", "/v1/proxy")):
            continue  # their vendors say what may be null
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        sparse = with_nulls(body, schema)
        assert sparse != body or path.startswith(("/v1/amazon_q", "/v1/search"))
        answer = await ask(demo, path.replace("{tail}", tail), sparse)
        assert (path, answer.status, answer.text if answer.status != status else "") == (path, status, "")


async def test_refusals_of_open_pages_are_described(demo: RunningGateway) -> None:
    document = (await demo.get("/openapi.json")).json()

    for path in ("/.well-known/openid-configuration", "/.well-known/jwks.json", "/v1/models/definitions"):
        assert faults(document, path, await demo.get(path), "get") == []


async def test_the_headers_that_a_call_needs_can_be_filled_in_on_the_page(demo: RunningGateway) -> None:
    document = (await demo.get("/openapi.json")).json()
    token = demo.token(unit_primitives=RIGHTS)
    values = {"X-Gitlab-Authentication-Type": "oidc", "X-Gitlab-Realm": "self-managed"}
    known = demo.request_bytes("POST", "/", token=token).decode().split("\r\n")
    values |= dict(line.split(": ", 1) for line in known if line.lower().startswith("x-gitlab-instance-id"))
    schemes = document["components"]["securitySchemes"]

    for path, tail, body, status in CALLS:
        operation = document["paths"][path]["post"]
        (needed,) = operation["security"]
        told = {schemes[key]["name"] for key in needed if schemes[key]["type"] == "apiKey"}
        sent = {name: values[name] for name in told}
        sent |= {row["name"]: PROXY for row in operation.get("parameters", ()) if row["in"] == "header"}
        answer = await demo.post(
            path.replace("{tail}", tail), json=body, headers={"Authorization": f"Bearer {token}", **sent}
        )
        assert (path, answer.status) == (path, status)


async def test_every_request_of_the_page_works_as_it_stands(demo: RunningGateway) -> None:
    document = (await demo.get("/openapi.json")).json()
    # Without an index, a vendor's key or a service that anyone may call there is no more to be had.
    ends = {
        "/v1/search": "docs_release_missing",
        "/v1/proxy": "provider_key_missing",
        "/v1/amazon_q": "amazon_q_unavailable",
    }
    asked = {path: rows["post"] for path, rows in document["paths"].items() if "requestBody" in rows.get("post", ())}

    for path, operation in asked.items():
        tail = next((row["example"] for row in operation.get("parameters", ()) if row["in"] == "path"), "")
        body = operation["requestBody"]["content"]["application/json"]["example"]
        answer = await ask(demo, path.replace("{tail}", tail), body, (*RIGHTS, "generate_release_notes"))
        end = next((code for prefix, code in ends.items() if path.startswith(prefix)), "")
        if end:
            assert (path, answer.refusal.code) == (path, end)
        else:
            assert (path, answer.status, answer.text if answer.status != 200 else "") == (path, 200, "")
    assert set(EXAMPLES) | {"/v1/summarize_text", "/v1/generate_release_notes"} == set(asked)
