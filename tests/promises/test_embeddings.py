"""POST /v1/embeddings/code_embeddings, …/index and …/search (contract 12.2, checklist H2)."""

import copy
import math
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import OPENAI_KEY, RunningGateway
from tests.support.http_client import Answer

PATH = "/v1/embeddings/code_embeddings"
NO_KEYS = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
OWN = {"AIGW_CUSTOM_MODELS__ENABLED": "true"}
ONE_TRY = {"AIGW_ROUTING__TRIES": "1"}
SMALL = "text_embedding_3_small"
UNIT_PRIMITIVE = "generate_embeddings_codebase"


def body(*contents: Any, provider: Any = "gitlab", identifier: Any = SMALL, **members: Any) -> dict[str, Any]:
    metadata = {"provider": provider, "identifier": identifier}
    return {"model_metadata": metadata, "contents": list(contents) or ["x = 1"], **members}


def own(gateway: RunningGateway, *contents: Any, **metadata: Any) -> dict[str, Any]:
    server = {
        "provider": "litellm",
        "identifier": "custom_openai/nomic-embed",
        "name": "embedding",
        "endpoint": f"{gateway.provider.url}/v1",
    } | metadata
    return {
        "model_metadata": {name: value for name, value in server.items() if value is not ...},
        "contents": list(contents) or ["x = 1"],
    }


async def ask(
    gateway: RunningGateway, asked: Any, path: str = PATH, scopes: tuple[str, ...] = (UNIT_PRIMITIVE,)
) -> Answer:
    return await gateway.post(path, json=asked, token=gateway.token(unit_primitives=scopes))


def vectors(answer: Answer) -> list[list[float]]:
    assert answer.status == 200, answer
    rows = answer.json()["predictions"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    return [row["embedding"] for row in rows]


def fault(answer: Answer) -> tuple[int, str, str]:
    (row,) = answer.json()["detail"]
    return answer.status, ".".join(map(str, row["loc"][1:])), row["type"]


# --- A catalogue model ---


async def test_as_many_texts_as_may_come_are_asked_for_in_parts_whose_answers_can_be_read(
    gateway: RunningGateway,
) -> None:
    answer = await ask(gateway, body(*map(str, range(2048))))

    asked = [request.json()["input"] for request in gateway.provider.requests]
    assert len(vectors(answer)) == 2048
    assert sorted(text for part in asked for text in part) == sorted(map(str, range(2048)))
    # 256 vectors of 4,096 numbers, 28 letters each, are what we read at most.
    assert max(map(len, asked)) == 256


@pytest.mark.parametrize("path", [PATH, f"{PATH}/index", f"{PATH}/search"])
async def test_texts_become_vectors_in_their_order(gateway: RunningGateway, path: str) -> None:
    answer = await ask(gateway, body("a", "b", "c"), path)

    assert [vector[0] for vector in vectors(answer)] == [1, 2, 3]
    assert answer.json()["model"] == {"engine": "openai", "name": "text-embedding-3-small", "identifier": SMALL}
    assert answer.header("x-aigw-model") == "openai/text-embedding-3-small"
    assert (answer.header("server-timing") or "").startswith("provider;dur=")
    (request,) = gateway.provider.requests
    assert (request.path, request.header("authorization")) == ("/v1/embeddings", f"Bearer {OPENAI_KEY}")
    sent = request.json()
    assert (sent["model"], sent["input"]) == ("text-embedding-3-small", ["a", "b", "c"])
    assert "dimensions" not in sent
    assert (request.header("via") or "").startswith("1.1 torana-")


async def test_answers_out_of_order_are_put_in_order(gateway: RunningGateway) -> None:
    rows = [{"index": 1, "embedding": [0.5]}, {"index": 0, "embedding": [0.25]}]
    gateway.provider.answer_with(body={"object": "list", "data": rows, "model": "m"})

    assert vectors(await ask(gateway, body("a", "b"))) == [[0.25], [0.5]]


@pytest.mark.parametrize("numbers", [[{}, {"index": 1}], [{}, {}], [{"index": None}] * 2, [{"index": 0}] * 2])
async def test_vectors_without_their_numbers_come_in_the_order_of_their_texts(
    gateway: RunningGateway, numbers: list[dict[str, int | None]]
) -> None:
    """Gemini's server of this format leaves a zero out; others leave all out, or write nothing else."""
    rows = [{**number, "embedding": [value]} for number, value in zip(numbers, (0.25, 0.5), strict=True)]
    gateway.provider.answer_with(body={"object": "list", "data": rows, "model": "m"})

    assert vectors(await ask(gateway, body("a", "b"))) == [[0.25], [0.5]]


@pytest.mark.parametrize("identifier", [None, "", "__default__embeddings_code"])
async def test_without_an_identifier_the_default_model_is_asked(gateway: RunningGateway, identifier: Any) -> None:
    answer = await ask(gateway, body(identifier=identifier))

    assert answer.json()["model"]["name"] == "text-embedding-3-small"


async def test_the_operator_can_choose_the_default(start_gateway: StartGateway) -> None:
    chosen = '{"embeddings_code": "text_embedding_3_large"}'
    gateway = await start_gateway(env={"AIGW_MODEL_SELECTION__DEFAULT_MODELS": chosen})

    assert (await ask(gateway, body(identifier=None))).json()["model"]["name"] == "text-embedding-3-large"


@pytest.mark.parametrize(
    ("drop", "sent"), [(None, 256), (False, 256), (True, None), (["dimensions"], None), (["user"], 256)]
)
async def test_dimensions_are_passed_on_unless_they_are_to_be_dropped(
    gateway: RunningGateway, drop: Any, sent: int | None
) -> None:
    await ask(gateway, body(dimensions=256, litellm_drop_params=drop))

    assert gateway.provider.requests[0].json().get("dimensions") == sent


@pytest.mark.parametrize("identifier", ["unknown", "claude_sonnet_4_6", "chat_default"])
async def test_a_model_that_makes_no_vectors_is_a_fault(gateway: RunningGateway, identifier: str) -> None:
    answer = await ask(gateway, body(identifier=identifier))

    assert fault(answer) == (422, "model_metadata.identifier", "value_error")
    assert gateway.provider.requests == []


async def test_what_was_spent_is_in_the_log(gateway: RunningGateway) -> None:
    await ask(gateway, body("some text"))

    line = await gateway.log.find(path=PATH)
    assert (line["model"], line["outcome"], line["meta.unit_primitive"]) == (
        "text-embedding-3-small",
        "completed",
        UNIT_PRIMITIVE,
    )
    assert line["input_tokens"] > 0
    assert 0 < line["provider_s"] <= line["duration_s"]
    assert "some text" not in str(gateway.log.lines)


async def test_administrators_can_choose_embedding_models_for_embeddings_only(gateway: RunningGateway) -> None:
    rows = (await gateway.get("/v1/models/definitions")).json()["unit_primitives"]

    selectable = {row["feature_setting"]: row["selectable_models"] for row in rows}
    assert selectable.pop("embeddings_code") == [SMALL, "text_embedding_3_large"]
    assert not any("embedding" in name for names in selectable.values() for name in names)
    (row,) = (row for row in rows if row["feature_setting"] == "embeddings_code")
    assert (row["default_model"], row["unit_primitives"]) == (SMALL, [UNIT_PRIMITIVE])


async def test_without_an_embedding_model_none_is_offered(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={**NO_KEYS, "ANTHROPIC_API_KEY": "k"})

    rows = (await gateway.get("/v1/models/definitions")).json()["unit_primitives"]

    assert rows
    assert "embeddings_code" not in {row["feature_setting"] for row in rows}


# --- A client's own server ---


async def test_litellm_asks_the_clients_own_server(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=OWN)

    answer = await ask(gateway, own(gateway, "a", "b", api_key="k"))

    assert len(vectors(answer)) == 2
    assert answer.json()["model"] == {
        "engine": "litellm",
        "name": "nomic-embed",
        "identifier": "custom_openai/nomic-embed",
    }
    (request,) = gateway.provider.requests
    assert (request.path, request.header("authorization")) == ("/v1/embeddings", "Bearer k")
    assert request.json()["model"] == "nomic-embed"


@pytest.mark.parametrize(
    ("metadata", "loc", "kind"),
    [
        ({"name": ...}, "model_metadata.name", "missing"),
        ({"name": "mistral"}, "model_metadata.name", "literal_error"),
        ({"endpoint": ...}, "model_metadata.endpoint", "missing"),
        ({"endpoint": ""}, "model_metadata.endpoint", "too_short"),
        ({"endpoint": "ftp://x"}, "model_metadata.endpoint", "value_error"),
        ({"endpoint": "http://x/" + "y" * 247}, "model_metadata.endpoint", "string_too_long"),
        ({"identifier": "i" * 1001}, "model_metadata.identifier", "string_too_long"),
        ({"api_key": "k" * 2001}, "model_metadata.api_key", "string_too_long"),
        ({"identifier": "anthropic/claude"}, "model_metadata.identifier", "value_error"),
        ({"identifier": "bedrock/titan"}, "model_metadata.identifier", "value_error"),
        ({"provider": "openai"}, "model_metadata.provider", "literal_error"),
    ],
)
async def test_a_faulty_server_is_a_fault_of_the_body(
    start_gateway: StartGateway, metadata: dict[str, Any], loc: str, kind: str
) -> None:
    gateway = await start_gateway(env=OWN)

    assert fault(await ask(gateway, own(gateway, **metadata), scopes=())) == (422, loc, kind)
    assert gateway.provider.requests == []


@pytest.mark.parametrize("metadata", [{"identifier": "i" * 1000}, {"api_key": "k" * 2000}, {"identifier": None}])
async def test_at_the_limit_all_is_well(start_gateway: StartGateway, metadata: dict[str, Any]) -> None:
    gateway = await start_gateway(env=OWN)

    assert (await ask(gateway, own(gateway, **metadata))).status == 200


async def test_while_custom_models_are_off_a_server_is_refused(gateway: RunningGateway) -> None:
    answer = await ask(gateway, own(gateway))

    assert (answer.status, answer.json()["detail"]) == (400, "Custom models are disabled")
    assert gateway.provider.requests == []


# --- Bodies and rights ---


async def test_it_needs_its_unit_primitive(gateway: RunningGateway) -> None:
    answer = await ask(gateway, body(), scopes=("duo_chat",))

    assert (answer.status, answer.json()["detail"]) == (403, f"Unauthorized to access {UNIT_PRIMITIVE}")


@pytest.mark.parametrize(
    ("member", "good", "bad", "kind"),
    [
        ("contents", ["x"] * 2048, ["x"] * 2049, "too_long"),
        ("contents", ["x"], [], "too_short"),
        ("contents", [""], "x", "list_type"),
        ("contents", ["x"], ..., "missing"),
        ("dimensions", 1, 0, "value_error"),
        ("dimensions", 4096, 4097, "value_error"),
        ("dimensions", "64", "x", "int_type"),
        ("dimensions", None, [1], "int_type"),
        ("model_metadata", {"provider": "gitlab"}, ..., "missing"),
        ("model_metadata", {"provider": "gitlab"}, None, "dict_type"),
    ],
)
async def test_each_limit_holds_alone(gateway: RunningGateway, member: str, good: Any, bad: Any, kind: str) -> None:
    answers = []
    for value in (good, bad):
        asked = copy.deepcopy(body(novel=1)) | {member: value}
        if value is ...:
            del asked[member]
        answers.append(await ask(gateway, asked))

    assert answers[0].status == 200
    assert fault(answers[1]) == (422, member, kind)


async def test_each_content_is_a_text(gateway: RunningGateway) -> None:
    assert fault(await ask(gateway, body("a", 1))) == (422, "contents.1", "string_type")


@pytest.mark.parametrize("name", [None, "", "openai", "amazon_q", 7])
async def test_the_provider_is_one_of_two(gateway: RunningGateway, name: Any) -> None:
    status, loc, _ = fault(await ask(gateway, body(provider=name)))

    assert (status, loc) == (422, "model_metadata.provider")


# --- The demo ---


@pytest.mark.parametrize("env", [NO_KEYS, {"AIGW_MOCK_MODEL_RESPONSES": "true"}])
async def test_the_demo_embeds_where_nothing_else_does(start_gateway: StartGateway, env: dict[str, str]) -> None:
    gateway = await start_gateway(env=env)

    answer = await ask(gateway, body("def parse(text)", "def parse(line)", "Zebras graze", "", identifier=None))

    parse, similar, other, empty = vectors(answer)
    assert answer.header("x-torana-demo") == "true"
    assert answer.json()["model"]["engine"] == "demo"
    assert {round(math.hypot(*vector), 6) for vector in (parse, similar, other, empty)} == {1.0}
    assert len({len(vector) for vector in (parse, similar, other, empty)}) == 1
    assert math.dist(parse, similar) < math.dist(parse, other)
    assert gateway.provider.requests == []


async def test_the_demo_makes_vectors_of_the_length_asked_for(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_MOCK_MODEL_RESPONSES": "true", **OWN})

    asked = await ask(gateway, body(dimensions=7))
    stands_in = await ask(gateway, body())
    server = await ask(gateway, own(gateway))

    assert [len(vectors(answer)[0]) for answer in (asked, stands_in, server)] == [7, 1536, 768]
    assert server.json()["model"]["engine"] == "demo"


# --- Failures ---


@pytest.mark.parametrize(
    ("upstream", "status", "text"),
    [
        (400, 400, "400: Bad Request"),
        (401, 401, "401: Unauthorized"),
        (403, 503, "Inference failed"),
        (404, 503, "Inference failed"),
        (429, 429, "Too many requests. Please try again later."),
        (500, 503, "Inference failed"),
        (529, 503, "Inference failed"),
    ],
)
async def test_each_upstream_failure_has_its_status(
    start_gateway: StartGateway, upstream: int, status: int, text: str
) -> None:
    gateway = await start_gateway(env=ONE_TRY)
    gateway.provider.fail_with(upstream, headers={"Retry-After": "7"})

    answer = await ask(gateway, body())

    assert (answer.status, answer.json()["detail"]) == (status, text)
    assert answer.header("retry-after") == ("7" if upstream in (429, 500, 529) else None)
    assert answer.refusal.layer == "provider"


@pytest.mark.parametrize(
    ("says", "counted"),
    [
        ("Unable to submit request because the input token count is 21001 but model only supports up to 20000.", True),
        ("Requested 21001 tokens, max 20000 tokens per request", True),
        (
            "This model's maximum context length is 20000 tokens, however you requested 21001 tokens "
            "(21001 in your prompt; 0 for the completion). Please reduce your prompt; or completion length.",
            True,
        ),
        ("Invalid 'input[2]': maximum input length is 20000 tokens.", False),
    ],
)
async def test_texts_that_are_too_long_are_told_so_that_gitlab_halves_them(
    start_gateway: StartGateway, says: str, counted: bool
) -> None:
    gateway = await start_gateway(env=ONE_TRY)
    gateway.provider.fail_with(400, {"error": {"message": says, "type": "invalid_request_error"}})

    answer = await ask(gateway, body("a", "b"))

    told = ", the input token count is 21001 but the model supports up to 20000" if counted else ""
    assert (answer.status, answer.json()["detail"]) == (400, f"400: Bad Request{told}")
    assert answer.refusal.code == "context_length_exceeded"


@pytest.mark.parametrize("how", ["html", "cut_json", "short_body", "error_event"])
async def test_an_answer_that_is_none_is_503(start_gateway: StartGateway, how: Any) -> None:
    gateway = await start_gateway(env=ONE_TRY)
    gateway.provider.answer_malformed(how)

    assert (await ask(gateway, body())).status == 503


@pytest.mark.parametrize("rows", [[], [{"index": 0, "embedding": [1.0]}] * 2, [{"index": 1, "embedding": [1.0]}]])
async def test_vectors_that_do_not_match_the_texts_are_never_passed_on(
    start_gateway: StartGateway, rows: list[Any]
) -> None:
    gateway = await start_gateway(env=ONE_TRY)
    gateway.provider.answer_with(body={"data": rows})

    assert (await ask(gateway, body("a"))).status == 503


async def test_silence_is_503(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env=ONE_TRY | {"AIGW_TIMEOUTS__FIRST_BYTE_S": "0.05"})
    gateway.provider.stall()

    answer = await ask(gateway, body())

    assert (answer.status, answer.refusal.code) == (503, "provider_timeout")


async def test_the_deadline_holds_over_all_tries(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_TIMEOUTS__REQUEST_S": "0.05"})
    gateway.provider.stall()

    answer = await ask(gateway, body())

    assert (answer.status, answer.refusal.code) == (503, "provider_timeout")


async def test_a_server_that_fails_once_is_asked_again(gateway: RunningGateway) -> None:
    gateway.provider.fail_with(500, times=1)

    answer = await ask(gateway, body())

    assert answer.status == 200
    assert len(gateway.provider.requests) == 2
    assert (await gateway.log.find(path=PATH))["attempts"] == 2


async def test_a_client_that_leaves_hangs_up_on_the_provider(gateway: RunningGateway) -> None:
    gateway.provider.stall()
    connection = await gateway.connect()
    token = gateway.token(unit_primitives=[UNIT_PRIMITIVE])
    await connection.send(gateway.request_bytes("POST", PATH, json=body(), token=token))
    request = await gateway.provider.request(1)

    connection.reset()

    await request.hung_up.wait()
    assert (await gateway.log.find(path=PATH))["outcome"] == "client_cancelled"
