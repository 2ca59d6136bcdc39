"""Bodies in which a member that the gate judges stands twice: parsers disagree which one counts, so nothing is sent."""

import json

import pytest
from tests.support.gateway import RunningGateway

PROXY = "ai_gateway_model_provider_proxy"
ANTHROPIC = "/v1/proxy/anthropic/v1/messages"
OPENAI = "/v1/proxy/openai/v1/chat/completions"
VERTEX = "/v1/proxy/vertex-ai/v1/projects/p/locations/l/publishers/anthropic/models/claude-x:streamRawPredict"
DIALECTS = ("/openai/v1/chat/completions", "/openai/v1/responses", "/openai/v1/embeddings", "/anthropic/v1/messages")
MODELS = {ANTHROPIC: "claude-sonnet-4-6", OPENAI: "gpt-5-mini-2025-08-07"}

SPELLINGS = ["model", r"mod\u0065l", r"\u006dodel", r"\u006D\u006F\u0064\u0065\u006C", "Model", "MODEL", r"mo\u0044el"]
"""Of one name, to a parser that reads escapes and looks at letters as most do, or as those that know no case do."""
TWICE = [
    (name, f'"{name}":{value},"{again}":{value}')
    for name, value in (("stream", "false"), ("max_tokens", "9"), ("max_completion_tokens", "9"))
    for again in (name, name.replace("m", r"\u006d"))
]


async def post(gateway: RunningGateway, path: str, body: str, **headers: str) -> tuple[int, str, str]:
    answer = await gateway.request(
        "POST", path, body=body.encode(), token=gateway.token(unit_primitives=(PROXY,)),
        headers={"X-Gitlab-Unit-Primitive": PROXY} | headers,
    )  # fmt: skip
    refusal = answer.json().get("refusal", {})
    return answer.status, refusal.get("code", ""), refusal.get("missing", "")


@pytest.mark.parametrize("path", [ANTHROPIC, OPENAI])
@pytest.mark.parametrize("second", SPELLINGS)
async def test_two_models_in_one_relayed_body_are_refused(gateway: RunningGateway, path: str, second: str) -> None:
    good = MODELS[path]
    for first_value, second_value in (("forbidden-model", good), (good, "forbidden-model"), (good, good)):
        body = f'{{"{second}":"{first_value}","messages":[],"model":"{second_value}"}}'
        assert await post(gateway, path, body) == (400, "member_repeated", "model"), body
    assert gateway.provider.requests == []


@pytest.mark.parametrize("path", [ANTHROPIC, OPENAI])
@pytest.mark.parametrize(("name", "twice"), TWICE)
async def test_other_judged_members_that_stand_twice_are_refused(
    gateway: RunningGateway, path: str, name: str, twice: str
) -> None:
    for values in (twice, twice.replace("false", "null", 1)):
        body = f'{{"model":"{MODELS[path]}","messages":[],{values}}}'
        assert await post(gateway, path, body) == (400, "member_repeated", name)
    assert gateway.provider.requests == []


async def test_the_refusal_of_a_relayed_body_is_the_contracts(gateway: RunningGateway) -> None:
    answer = await gateway.request(
        "POST", ANTHROPIC, body=b'{"model":"claude-x","model":"gpt-5"}',
        token=gateway.token(unit_primitives=(PROXY,)), headers={"X-Gitlab-Unit-Primitive": PROXY},
    )  # fmt: skip

    assert (answer.status, answer.json()["detail"]) == (400, "Invalid JSON")


async def test_a_model_in_the_path_leaves_one_stream_in_the_body(gateway: RunningGateway) -> None:
    assert await post(gateway, VERTEX, '{"stream":true,"stream":false}') == (400, "member_repeated", "stream")


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("second", SPELLINGS)
async def test_two_models_are_refused_in_vendors_dialects(gateway: RunningGateway, path: str, second: str) -> None:
    for first_value, second_value in (("nobody", "chat_default"), ("chat_default", "nobody")):
        body = f'{{"{second}":"{first_value}","messages":[],"input":"a","max_tokens":9,"model":"{second_value}"}}'
        assert await post(gateway, path, body) == (400, "member_repeated", "model"), body
    assert gateway.provider.requests == []


@pytest.mark.parametrize("path", [ANTHROPIC, OPENAI])
async def test_judged_names_below_the_top_and_in_texts_pass_unchanged(gateway: RunningGateway, path: str) -> None:
    inner = {"model": "m", "Model": "n", "stream": True, "max_tokens": 5, "model_": 1}
    asked = {
        "max_tokens": 9,
        "messages": [{"role": "user", "content": 'a "model": "x", "model": "y" \\"model\\": é \\'}],
        "metadata": inner,
        "tools": [{"name": "t", "input_schema": {"type": "object", "properties": inner}}],
        'a"model': 1,
        "model_metadata": 2,
        "models": 3,
        "model": MODELS[path],
    }
    for body in (json.dumps(asked), json.dumps(asked, ensure_ascii=False, separators=(",", ":"))):
        assert (await post(gateway, path, body))[0] == 200
        assert gateway.provider.requests[-1].body == body.encode()
