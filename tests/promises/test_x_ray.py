"""POST /v1/x-ray/libraries: the dependency summary of 17.x (contract 6.8)."""

from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer

PATH = "/v1/x-ray/libraries"


def body(metadata: Any = None, type: Any = "x_ray_package_file_prompt", **payload: Any) -> dict[str, Any]:
    given = {"prompt": "gem 'rails'", "provider": "anthropic", "model": "claude-2.1", **payload}
    component = {"type": type, "payload": {name: value for name, value in given.items() if value is not ...}}
    if metadata is not None:
        component["metadata"] = metadata
    return {"prompt_components": [component]}


async def ask(gateway: RunningGateway, asked: Any, scopes: tuple[str, ...] = ("generate_code",)) -> Answer:
    return await gateway.post(PATH, json=asked, token=gateway.token(unit_primitives=scopes))


def fault(answer: Answer) -> tuple[int, str, str]:
    (row,) = answer.json()["detail"]
    return answer.status, ".".join(map(str, row["loc"])), row["type"]


async def test_the_default_chat_model_answers(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(text="rails: a web framework")

    answer = await ask(gateway, body())

    assert (answer.status, answer.json()) == (200, {"response": "rails: a web framework"})
    sent = gateway.provider.requests[0].json()
    assert sent["model"] == "claude-sonnet-4-6"
    assert "gem 'rails'" in str(sent["messages"])


async def test_it_needs_the_right_of_an_instance(gateway: RunningGateway) -> None:
    refused = await ask(gateway, body(), scopes=("complete_code",))
    user = await gateway.post(PATH, json=body(), token=gateway.user_token(unit_primitives=["generate_code"]))

    for answer in (refused, user):
        assert (answer.status, answer.json()["detail"]) == (403, "Unauthorized to access X Ray")
    assert gateway.provider.requests == []


@pytest.mark.parametrize(
    ("asked", "loc", "kind"),
    [
        ({}, "body.prompt_components", "missing"),
        ({"prompt_components": []}, "body.prompt_components", "too_short"),
        ({"prompt_components": body()["prompt_components"] * 2}, "body.prompt_components", "too_long"),
        (body(type="other"), "body.prompt_components.0.type", "literal_error"),
        (body(prompt=...), "body.prompt_components.0.payload.prompt", "missing"),
        (body(prompt="x" * 400_001), "body.prompt_components.0.payload.prompt", "string_too_long"),
        (body(provider="openai"), "body.prompt_components.0.payload.provider", "literal_error"),
        (body(model="claude-3"), "body.prompt_components.0.payload.model", "literal_error"),
        (body(metadata={str(n): "v" for n in range(11)}), "body.prompt_components.0.metadata", "too_long"),
        (body(metadata={"k" * 101: "v"}), "body.prompt_components.0.metadata", "string_too_long"),
        (body(metadata={"k": "v" * 256}), "body.prompt_components.0.metadata.k", "string_too_long"),
        (body(metadata={"k": 1}), "body.prompt_components.0.metadata.k", "string_type"),
    ],
)
async def test_each_fault_is_named(gateway: RunningGateway, asked: Any, loc: str, kind: str) -> None:
    assert fault(await ask(gateway, asked, scopes=())) == (422, loc, kind)


@pytest.mark.parametrize(
    "asked",
    [
        body(prompt="x" * 400_000),
        body(metadata={str(n): "v" for n in range(10)}),
        body(metadata={"k" * 100: "v" * 255}),
        body(metadata={}),
        body(provider=..., model=...),
    ],
)
async def test_at_the_limit_all_is_well(gateway: RunningGateway, asked: Any) -> None:
    assert (await ask(gateway, asked)).status == 200


@pytest.mark.parametrize(
    ("upstream", "status", "text"),
    [
        (500, 503, "Inference failed"),
        (400, 503, "Inference failed"),
        (429, 429, "Too many requests. Please try again later."),
    ],
)
async def test_a_failed_model_is_told_as_on_the_code_endpoints(
    start_gateway: StartGateway, upstream: int, status: int, text: str
) -> None:
    gateway = await start_gateway(env={"AIGW_ROUTING__TRIES": "1"})
    gateway.provider.fail_with(upstream)

    answer = await ask(gateway, body())

    assert (answer.status, answer.json()["detail"]) == (status, text)
