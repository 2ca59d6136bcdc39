"""Vectors of vendors with formats of their own, behind OpenAI's embeddings and contract 12.2."""

import base64
import json
import math
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.google import PROJECT, FakeGoogle
from tests.support.http_client import Answer
from tests.support.provider import ScriptedProvider

OPENAIS, OURS = "/openai/v1/embeddings", "/v1/embeddings/code_embeddings"
SCOPES = ["ai_gateway_model_provider_proxy", "generate_embeddings_codebase"]
TITAN, COHERE = "amazon.titan-embed-text-v2:0", "cohere.embed-multilingual-v3"
CATALOGUE = f"""\
models:
- {{name: titan, title: Titan, dimensions: 1024, deployments: [{{provider: bedrock, model: "{TITAN}"}}]}}
- {{name: cohere, title: Cohere, dimensions: 1024, deployments: [{{provider: bedrock, model: "{COHERE}"}}]}}
- {{name: vertex_text, title: Vertex, dimensions: 768, deployments: [
    {{provider: vertex_ai, model: text-embedding-005}}]}}
- {{name: on_vertex, title: Vertex, dimensions: 3072, deployments: [
    {{provider: vertex_ai, model: gemini-embedding-001}}]}}
- {{name: either, title: Either, dimensions: 3072, deployments: [
    {{provider: gemini, model: gemini-embedding-001}},
    {{provider: openai, model: text-embedding-3-large, order: 1}}]}}
- {{name: claude, title: None, dimensions: 5, deployments: [{{provider: anthropic, model: claude-sonnet-4-6}}]}}
"""
PLACE = f"/v1/projects/{PROJECT}/locations/global/publishers/google/models"
PATHS = {
    "gemini_embedding_001": "/v1beta/models/gemini-embedding-001:batchEmbedContents",
    "vertex_text": f"{PLACE}/text-embedding-005:predict",
    "text_embedding_005_vertex": f"{PLACE}/text-embedding-005:predict",
    "on_vertex": f"{PLACE}/gemini-embedding-001:predict",
    "titan": "/model/amazon.titan-embed-text-v2%3A0/invoke",
    "cohere": "/model/cohere.embed-multilingual-v3/invoke",
}


@pytest.fixture
async def gateway(
    start_gateway: StartGateway, provider: ScriptedProvider, tmp_path: Path
) -> AsyncIterator[RunningGateway]:
    (tmp_path / "models.yml").write_text(CATALOGUE)
    async with FakeGoogle() as google:
        yield await start_gateway(
            env={
                "AIGW_CATALOG": str(tmp_path),
                "GEMINI_API_KEY": "gemini-key",
                "GEMINI_BASE_URL": provider.url,
                "AIGW_GOOGLE_CLOUD_PLATFORM__SERVICE_ACCOUNT_JSON_KEY": google.key(),
                "VERTEX_BASE_URL": provider.url,
                "AWS_REGION_NAME": "eu-west-1",
                "AWS_BEARER_TOKEN_BEDROCK": "bedrock-token",
                "AWS_BEDROCK_RUNTIME_ENDPOINT": provider.url,
                "AIGW_CUSTOM_MODELS__ENABLED": "true",
                "AIGW_ROUTING__TRIES": "1",
            }
        )


async def ask(gateway: RunningGateway, model: str, path: str = OPENAIS, **more: Any) -> Answer:
    if path == OPENAIS:
        asked = {"model": model, "input": ["a", "bb", "ccc"], **more}
    else:
        asked = {"model_metadata": {"provider": "gitlab", "identifier": model}, "contents": ["a", "bb", "ccc"], **more}
    return await gateway.post(path, json=asked, token=gateway.token(unit_primitives=SCOPES))


def rows_of(answer: Answer) -> list[list[float]]:
    assert answer.status == 200, answer
    told = answer.json()
    rows = told.get("data") or told["predictions"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    return [row["embedding"] for row in rows]


@pytest.mark.parametrize("path", [OPENAIS, OURS])
@pytest.mark.parametrize("model", PATHS)
async def test_every_vendors_vectors_come_in_the_shape_that_was_asked_for(
    gateway: RunningGateway, model: str, path: str
) -> None:
    answer = await ask(gateway, model, path)

    assert len(rows_of(answer)) == 3
    if "vertex" not in model:
        assert [row[0] for row in rows_of(answer)] == [1, 2, 3]
    requests = gateway.provider.requests
    assert {request.target.decode().partition("?")[0] for request in requests} == {PATHS[model]}
    assert len(requests) == (3 if model in ("titan", "on_vertex") else 1)
    if model == "titan":
        assert sorted(request.json()["inputText"] for request in requests) == ["a", "bb", "ccc"]
        assert requests[0].header("authorization") == "Bearer bedrock-token"


@pytest.mark.parametrize(
    ("path", "kind"),
    [(OURS, "search_document"), (f"{OURS}/index", "search_document"), (f"{OURS}/search", "search_query")],
)
async def test_models_that_tell_questions_from_documents_are_told_which(
    gateway: RunningGateway, path: str, kind: str
) -> None:
    assert (await ask(gateway, "cohere", path)).status == 200

    assert gateway.provider.requests[0].json()["input_type"] == kind


async def test_a_number_that_no_vector_has_is_the_vendors_fault(gateway: RunningGateway) -> None:
    told = {"embeddings": [{"values": [1e300, 0.5]}] * 3}
    gateway.provider.answer_with(status=200, body=json.dumps(told).encode())

    answer = await ask(gateway, "gemini_embedding_001", encoding_format="base64")

    assert (answer.status, answer.json()["error"]["code"]) == (502, "provider_broke")


async def test_vectors_are_packed_where_a_client_wants_them_so(gateway: RunningGateway) -> None:
    answer = await ask(gateway, "gemini_embedding_001", encoding_format="base64", dimensions=2)

    (told,) = {struct.unpack("<2f", base64.b64decode(row)) for row in rows_of(answer)[:1]}
    assert told == pytest.approx((0.894427, -0.447214))
    assert gateway.provider.requests[0].json()["requests"][0]["outputDimensionality"] == 2


@pytest.mark.parametrize("path", [OPENAIS, OURS])
@pytest.mark.parametrize("model", [model for model in PATHS if model != "cohere"])
async def test_google_cuts_its_vectors_to_the_length_asked_for_and_clients_get_them_of_length_one(
    gateway: RunningGateway, model: str, path: str
) -> None:
    whole = rows_of(await ask(gateway, model, path))
    chosen = rows_of(await ask(gateway, model, path, dimensions=2))

    if model == "titan":
        assert chosen == whole
    else:
        assert [math.hypot(*row) for row in chosen] == pytest.approx([1] * 3)
        assert [row[1] / row[0] for row in chosen] == pytest.approx([row[1] / row[0] for row in whole])
        assert chosen != whole


async def test_more_texts_than_a_request_takes_are_asked_in_parts_and_counted_once(gateway: RunningGateway) -> None:
    answer = await ask(gateway, "cohere", input=["x"] * 200)

    assert [row[0] for row in rows_of(answer)] == [*range(1, 97), *range(1, 97), *range(1, 9)]
    assert [len(request.json()["texts"]) for request in gateway.provider.requests] == [96, 96, 8]
    (record,) = gateway.usage()
    assert (record["model"], record["status"]) == ("cohere", "completed")


async def test_the_parts_usage_is_added_up(gateway: RunningGateway) -> None:
    answer = await ask(gateway, "titan")

    assert answer.json()["usage"] == {"prompt_tokens": 75, "total_tokens": 75}


@pytest.mark.parametrize("model", PATHS)
async def test_what_a_model_cannot_be_told_is_refused_before_anything_is_sent(
    gateway: RunningGateway, model: str
) -> None:
    answer = await ask(gateway, model, input=[[1, 2], [3]])

    assert (answer.status, answer.json()["error"]["code"]) == (400, "request_invalid")
    assert gateway.provider.requests == []
    assert gateway.usage() == []


async def test_who_can_be_told_is_asked_instead(gateway: RunningGateway) -> None:
    answer = await ask(gateway, "either", input=[[1, 2], [3]])

    assert (answer.status, answer.header("x-aigw-model")) == (200, "openai/text-embedding-3-large")


async def test_a_part_that_fails_fails_all(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(429)

    answer = await ask(gateway, "titan")

    assert answer.status == 429


async def test_a_vendor_without_vectors_is_not_asked(gateway: RunningGateway) -> None:
    answer = await ask(gateway, "claude")

    assert answer.status == 502
    assert gateway.provider.requests == []


async def test_a_client_may_name_a_model_on_bedrock_that_the_catalogue_lists(gateway: RunningGateway) -> None:
    metadata = {"provider": "litellm", "name": "embedding", "endpoint": "http://localhost:9", "identifier": ""}

    listed = await ask(gateway, "", OURS, model_metadata=metadata | {"identifier": f"bedrock/{TITAN}"})
    talking = await ask(
        gateway, "", OURS, model_metadata=metadata | {"identifier": "bedrock/global.anthropic.claude-sonnet-4-6"}
    )

    assert listed.json()["model"]["name"] == TITAN
    assert (talking.status, json.loads(talking.body)["detail"][0]["type"]) == (422, "value_error")
