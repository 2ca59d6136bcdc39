"""Requests as clients of 17.x, 18.x and 19.x send them, replayed: one build serves them all (contract 17).

`tests/corpus/<major>/*.json` holds the requests; its README says how they are written. A failure names
the client whose users a change would break.
"""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer

CORPUS = Path(__file__).parents[1] / "corpus"
FILES = sorted(CORPUS.glob("*/*.json"))
MAJORS = ("17.x", "18.x", "19.x")

SINCE_18 = (
    "/v1/models/definitions", "/v2/prompts/{tail}", "/v1/embeddings/code_embeddings",
    "/v1/embeddings/code_embeddings/index", "/v1/embeddings/code_embeddings/search",
    "/v1/amazon_q/oauth/application/delete", "/v1/amazon_q/oauth/application/verify",
)  # fmt: skip
UNTIL_18 = ("/v1/x-ray/libraries",)
OURS = ("/.well-known/", "/openai/", "/anthropic/", "/docs", "/openapi.json", "/redoc")
"""Paths that no release of the product calls by its contract."""


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


async def send(gateway: RunningGateway, file: dict[str, Any], request: dict[str, Any]) -> Answer:
    if "model_fails" in request:
        gateway.provider.fail_with(request["model_fails"])
    else:
        gateway.provider.answer_with(text=request.get("model_says", "a + b"))
    scopes = request.get("scopes", ())
    token = {
        "instance": lambda: gateway.token(unit_primitives=scopes),
        "user": lambda: gateway.user_token(unit_primitives=scopes),
        "none": lambda: None,
    }[request.get("token", "instance")]()
    body = None
    if "body" in request:
        body = json.dumps(request["body"]).replace("$PROVIDER", gateway.provider.url).encode()
    headers = {**file["headers"], **request.get("headers", {})}
    return await gateway.request(
        request.get("method", "POST"), request["path"], body=body, token=token, headers=headers
    )


def faults(answer: Answer, expected: dict[str, Any]) -> Iterator[str]:
    """What of an answer is not as expected; its members may be more."""
    if answer.status != expected["status"]:
        yield f"status {answer.status}, expected {expected['status']}: {answer.body[:300]!r}"
        return
    if not answer.is_whole:
        yield "the answer is cut"
    wanted_type = expected.get("content_type", "application/json")
    if not (answer.header("content-type") or "").startswith(wanted_type):
        yield f"content type {answer.header('content-type')}, expected {wanted_type}"
    if "json" in expected:
        yield from misfits(answer.json(), expected["json"], "$")
    if "text" in expected:
        yield from misfits(answer.text, expected["text"], "$")
    if "lines" in expected:
        for number, line in enumerate(lines_of(answer)):
            yield from misfits(line, expected["lines"], f"line {number}")
    if "line_types" in expected:
        types = [kind for kind, _ in groupby(line["type"] for line in lines_of(answer))]
        yield from misfits(types, expected["line_types"], "types") if types != expected["line_types"] else ()
    if "events" in expected:
        events = [line[7:] for line in answer.text.split("\r\n") if line.startswith("event: ")]
        found = [kind for kind, _ in groupby(events)]
        if found != expected["events"] or answer.header("x-streaming-format") != "sse":
            yield f"events {found}, expected {expected['events']}"


def lines_of(answer: Answer) -> list[Any]:
    assert answer.body.endswith(b"\n"), answer
    return [json.loads(line) for line in answer.body.splitlines()]


KINDS: dict[str, Any] = {
    "<text>": lambda value: isinstance(value, str),
    "<some text>": lambda value: isinstance(value, str) and value.strip() != "",
    "<integer>": lambda value: type(value) is int,
    "<number>": lambda value: type(value) in (int, float),
}


def misfits(value: Any, shape: Any, at: str) -> Iterator[str]:
    """Where `value` lacks something of `shape`: members and kinds must be there, more may be."""
    if isinstance(shape, dict) and isinstance(value, dict):
        for name, inner in shape.items():
            if name in value:
                yield from misfits(value[name], inner, f"{at}.{name}")
            else:
                yield f"{at} has no `{name}`: {value}"
    elif isinstance(shape, list) and len(shape) == 1 and isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from misfits(item, shape[0], f"{at}[{number}]")
    elif not (KINDS[shape](value) if isinstance(shape, str) and shape in KINDS else value == shape):
        yield f"{at} is {value!r}, expected {shape!r}"


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}-{path.stem}" for path in FILES])
async def test_clients_of_every_supported_major_are_served(start_gateway: StartGateway, path: Path) -> None:
    file = load(path)
    gateways: dict[bool, RunningGateway] = {}
    broken = []
    for request in file["requests"]:
        is_self_hosted = request.get("self_hosted", False)
        if is_self_hosted not in gateways:
            env = {"AIGW_CUSTOM_MODELS__ENABLED": str(is_self_hosted)}
            gateways[is_self_hosted] = await start_gateway(env=env)
        answer = await send(gateways[is_self_hosted], file, request)
        broken += [
            f"{file['client']}: {request['says']} ({request['path']}): {fault}"
            for fault in faults(answer, request["expected"])
        ]
    assert not broken, "\n".join(["breaks clients in the field", *broken])


@pytest.mark.parametrize("major", MAJORS)
async def test_the_corpus_of_each_major_asks_every_endpoint_that_it_knows(gateway: RunningGateway, major: str) -> None:
    table = gateway.running.serving.entrance.routes
    known = {
        (method, route.path)
        for route in table.routes
        for method in route.methods
        if method != "HEAD" and route.feature is None and not route.path.startswith(OURS)
        if not (major == "17.x" and (route.path in SINCE_18 or route.path.startswith("/v1/proxy/openai")))
        if not (major == "19.x" and route.path in UNTIL_18)
    }

    asked = set()
    for path in CORPUS.glob(f"{major}/*.json"):
        for request in load(path)["requests"]:
            method = request.get("method", "POST")
            route, _tail, _others = table.find(method, unquote(request["path"]).removeprefix("/ai"))
            if route is not None:
                asked.add((method, route.path))

    assert known - asked == set(), f"add a request of {major} clients to tests/corpus/{major}"


@pytest.mark.parametrize(
    ("value", "shape", "count"),
    [
        ({"a": 1, "b": 2}, {"a": "<integer>"}, 0),
        ({}, {"a": "<integer>"}, 1),
        ({"a": True}, {"a": "<integer>"}, 1),
        ([], ["<text>"], 1),
        (["", " "], ["<some text>"], 2),
        ([], [], 0),
        ([1], [], 1),
        ("x", "y", 1),
    ],
)
def test_a_shape_is_met_or_missed(value: Any, shape: Any, count: int) -> None:
    assert len(list(misfits(value, shape, "$"))) == count
