"""Bodies: every limit of the contract's tables alone, the list form of 422, leniency, and JSON that is none."""

import copy
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer

Body = dict[str, Any]
Path = tuple[str | int, ...]

UNIT_PRIMITIVES = ["complete_code", "generate_code", "duo_chat", "generate_commit_message"]
CANARY = "offending-value-5150"

FILE = {"file_name": "app.py", "content_above_cursor": "def hello", "content_below_cursor": ""}
FLAT: Body = {"current_file": FILE}
ATTACHED = {"type": "code_context", "payload": {"type": "file", "name": "b.py", "content": "x = 1"}}
TELEMETRY = {"requests": 1, "accepts": 0, "errors": 0}
CONTEXT = {"type": "file", "name": "b.py", "content": "x = 1"}


def envelope(kind: str) -> Body:
    return {"prompt_components": [{"type": f"code_editor_{kind}", "payload": FILE}]}


VALID: dict[str, Body] = {
    "/v2/completions": FLAT,
    "/v2/code/completions": FLAT,
    "/v2/code/generations": FLAT,
    "/v3/code/completions": envelope("completion"),
    "/v4/code/suggestions": envelope("generation"),
    "/v2/chat/agent": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/prompts/generate_commit_message": {"inputs": {"diff": "+ x"}},
    "/v2/prompts/generate_commit_message": {"inputs": {"diff": "+ x"}},
}
"""A body that each typed endpoint answers with 200."""


def with_member(body: Body, path: Path, value: Any) -> Body:
    """`body` with one member replaced; a missing list or object on the way is made."""
    changed = copy.deepcopy(body)
    place: Any = changed
    for part, following in itertools.pairwise(path):
        if isinstance(place, dict):
            place = place.setdefault(part, [] if isinstance(following, int) else {})
        else:
            place = place[part]
    place[path[-1]] = value
    return changed


def text_of(length: int) -> str:
    # Two bytes a letter, so that a limit counted in bytes shows.
    return "é" * length


class Limit:
    """`make(most)` passes and `make(most + 1)` does not; `base` makes the member's surroundings valid."""

    def __init__(self, *path: str | int, most: int, base: Body, make: Callable[[int], Any] = text_of) -> None:
        self.path = path
        self.most = most
        self.base = base
        self.make = make

    @property
    def type(self) -> str:
        return "too_long" if isinstance(self.make(1), list) else "string_too_long"


def flat_limits() -> list[Limit]:
    told = FLAT | {"telemetry": [TELEMETRY]}
    attached = FLAT | {"context": [CONTEXT]}
    return [
        Limit("project_path", most=255, base=FLAT),
        Limit("project_path", most=255, base=FLAT, make=lambda length: f"  {text_of(length)}\n"),
        Limit("current_file", "file_name", most=255, base=FLAT),
        Limit("current_file", "file_name", most=255, base=FLAT, make=lambda length: f"\t{text_of(length)} "),
        Limit("current_file", "language_identifier", most=255, base=FLAT),
        Limit("current_file", "content_above_cursor", most=100_000, base=FLAT),
        Limit("current_file", "content_below_cursor", most=100_000, base=FLAT),
        Limit("model_name", most=50, base=FLAT),
        Limit("model_name", most=50, base=FLAT, make=lambda length: f" {text_of(length)} "),
        Limit("telemetry", most=10, base=FLAT, make=lambda count: [TELEMETRY] * count),
        *(Limit("telemetry", 0, name, most=50, base=told) for name in ("model_engine", "model_name", "lang")),
        Limit("context", most=100, base=FLAT, make=lambda count: [CONTEXT] * count),
        Limit("context", 0, "type", most=1024, base=attached),
        Limit("context", 0, "name", most=1024, base=attached),
        Limit("context", 0, "content", most=500_000, base=attached),
    ]


def envelope_limits(kind: str) -> list[Limit]:
    one = envelope(kind)
    two = {"prompt_components": [*one["prompt_components"], ATTACHED]}
    first = ("prompt_components", 0)
    limits = [
        Limit("prompt_components", most=100, base=one, make=lambda n: one["prompt_components"] + [ATTACHED] * (n - 1)),
        Limit(*first, "metadata", "source", most=255, base=one),
        Limit(*first, "metadata", "version", most=255, base=one),
        Limit(*first, "payload", "file_name", most=255, base=one),
        Limit(*first, "payload", "file_name", most=255, base=one, make=lambda length: f" {text_of(length)} "),
        Limit(*first, "payload", "language_identifier", most=255, base=one),
        Limit(*first, "payload", "content_above_cursor", most=100_000, base=one),
        Limit(*first, "payload", "content_below_cursor", most=100_000, base=one),
        Limit("prompt_components", 1, "payload", "type", most=1024, base=two),
        Limit("prompt_components", 1, "payload", "name", most=1024, base=two),
        Limit("prompt_components", 1, "payload", "content", most=100_000, base=two),
    ]
    if kind == "generation":
        limits.append(Limit(*first, "payload", "prompt", most=400_000, base=one))
    return limits


def shown(answer: Answer) -> Any:
    """What is wrong by an answer: the status, and of a 422 the first error without its text."""
    if answer.status != 422:
        return answer.status
    (row,) = answer.json()["detail"]
    return answer.status, row["loc"], row["type"]


async def broken_limits(gateway: RunningGateway, path: str, limits: list[Limit]) -> list[Any]:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    wrong = []
    for limit in limits:
        within = await gateway.post(path, json=with_member(limit.base, limit.path, limit.make(limit.most)), token=token)
        beyond = await gateway.post(
            path, json=with_member(limit.base, limit.path, limit.make(limit.most + 1)), token=token
        )
        found = (shown(within), shown(beyond))
        if found != (200, (422, ["body", *limit.path], limit.type)):
            wrong.append((limit.path, limit.most, found))
    return wrong


@pytest.mark.parametrize("path", ["/v2/completions", "/v2/code/generations"])
async def test_every_limit_of_v2_code_holds_alone(gateway: RunningGateway, path: str) -> None:
    assert await broken_limits(gateway, path, flat_limits()) == []


@pytest.mark.parametrize("path", ["/v3/code/completions", "/v4/code/suggestions"])
async def test_every_limit_of_the_component_envelope_holds_alone(gateway: RunningGateway, path: str) -> None:
    assert await broken_limits(gateway, path, envelope_limits("completion") + envelope_limits("generation")) == []


async def test_every_limit_of_model_metadata_holds_alone(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    base_url = f"{gateway.provider.url}/"
    own = {"provider": "openai", "name": "mistral", "endpoint": f"{base_url}v1", "identifier": "custom_openai/m"}
    body = {"inputs": {"diff": "+ x"}, "model_metadata": own}
    limits = [
        *(
            Limit("model_metadata", name, most=255, base=body)
            for name in ("provider", "name", "friendly_name", "role_arn")
        ),
        Limit(
            "model_metadata",
            "endpoint",
            most=255,
            base=body,
            make=lambda n: base_url + "v" * (n - len(base_url) - 3) + "/v1",
        ),
        Limit("model_metadata", "api_key", most=2000, base=body, make=lambda length: "k" * length),
        Limit("model_metadata", "identifier", most=1000, base=body),
    ]

    assert await broken_limits(gateway, "/v1/prompts/generate_commit_message", limits) == []


async def test_every_limit_of_v2s_own_model_fields_holds_alone(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    base_url = f"{gateway.provider.url}/"
    own = {"model_provider": "litellm", "model_name": "llama3", "model_endpoint": f"{base_url}v1"}
    body = FLAT | own
    limits = [
        Limit("model_endpoint", most=255, base=body, make=lambda n: base_url + "v" * (n - len(base_url) - 3) + "/v1"),
        Limit("model_api_key", most=2000, base=body, make=lambda length: "k" * length),
        Limit("model_identifier", most=1000, base=body),
    ]

    assert await broken_limits(gateway, "/v2/completions", limits) == []


async def test_a_list_that_must_hold_something_is_refused_when_empty(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)

    for path, member in (
        ("/v3/code/completions", "prompt_components"),
        ("/v4/code/suggestions", "prompt_components"),
        ("/v2/chat/agent", "messages"),
    ):
        assert shown(await gateway.post(path, json={member: []}, token=token)) == (422, ["body", member], "too_short")
        assert shown(await gateway.post(path, json={}, token=token)) == (422, ["body", member], "missing")


WRONG: list[tuple[str, Path, Any, str]] = [
    ("/v2/completions", ("current_file",), CANARY, "dict_type"),
    ("/v2/completions", ("current_file", "file_name"), [CANARY], "string_type"),
    ("/v2/completions", ("current_file", "content_above_cursor"), None, "string_type"),
    ("/v2/completions", ("project_id",), CANARY, "int_type"),
    ("/v2/completions", ("prompt_version",), 4, "literal_error"),
    ("/v2/completions", ("model_provider",), CANARY, "literal_error"),
    ("/v2/completions", ("stream",), CANARY, "bool_type"),
    ("/v2/completions", ("telemetry",), CANARY, "list_type"),
    ("/v2/completions", ("telemetry", 0), CANARY, "dict_type"),
    ("/v2/completions", ("context", 0), CANARY, "dict_type"),
    ("/v2/code/generations", ("choices_count",), {CANARY: 1}, "int_type"),
    ("/v3/code/completions", ("prompt_components", 0, "type"), CANARY, "literal_error"),
    ("/v3/code/completions", ("prompt_components", 0, "payload"), [CANARY], "dict_type"),
    ("/v4/code/suggestions", ("prompt_components", 0, "payload", "stream"), CANARY, "bool_type"),
    ("/v4/code/suggestions", ("prompt_components", 0, "payload", "prompt_enhancer"), CANARY, "dict_type"),
    ("/v2/chat/agent", ("messages", 0, "role"), CANARY, "literal_error"),
    ("/v2/chat/agent", ("messages", 0, "content"), {CANARY: 1}, "string_type"),
    ("/v2/chat/agent", ("unavailable_resources",), CANARY, "list_type"),
    ("/v1/prompts/generate_commit_message", ("inputs",), CANARY, "dict_type"),
    ("/v1/prompts/generate_commit_message", ("prompt_version",), f"~~{CANARY}", "value_error"),
    ("/v2/prompts/generate_commit_message", ("stream",), CANARY, "bool_type"),
]


async def test_a_wrong_member_is_named_in_the_list_form_and_its_value_is_not_echoed(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    wrong = []

    for path, member, value, type_ in WRONG:
        base = VALID[path] if member != ("telemetry", 0) and member != ("context", 0) else FLAT | {member[0]: [{}]}
        answer = await gateway.post(path, json=with_member(base, member, value), token=token)
        if shown(answer) != (422, ["body", *member], type_) or CANARY in answer.text:
            wrong.append((path, member, answer))

    assert wrong == []


async def test_the_texts_of_422_stand_in_the_list(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)

    version = await gateway.post(
        "/v1/prompts/generate_commit_message", json={"inputs": {}, "prompt_version": "not a version"}, token=token
    )
    kind = await gateway.post("/v1/prompts/chat/react", json={"inputs": {}}, token=token)

    assert (version.status, kind.status) == (422, 422)
    assert version.json()["detail"] == [
        {"loc": ["body", "prompt_version"], "msg": "Invalid version constraint", "type": "value_error"}
    ]
    assert kind.json()["detail"] == [
        {"loc": ["body"], "msg": "Prompt 'chat/react' is not supported", "type": "value_error"}
    ]


async def test_a_missing_template_variable_is_named_as_an_input(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)

    answer = await gateway.post("/v1/prompts/generate_commit_message", json={"inputs": {}}, token=token)

    (row,) = answer.json()["detail"]
    assert (answer.status, row["loc"]) == (422, ["body", "inputs", "diff"])
    assert "diff" in row["msg"]


async def test_a_required_member_that_is_absent_is_missing(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    first = {"type": "code_editor_completion"}

    assert [
        shown(await gateway.post(path, json=body, token=token))
        for path, body in [
            ("/v2/completions", {}),
            ("/v2/completions", {"current_file": {"file_name": "a.py", "content_below_cursor": ""}}),
            ("/v2/code/generations", FLAT | {"prompt_version": 2}),
            ("/v2/code/generations", FLAT | {"prompt_version": 3}),
            ("/v3/code/completions", {"prompt_components": [first]}),
            ("/v1/prompts/generate_commit_message", {}),
        ]
    ] == [
        (422, ["body", "current_file"], "missing"),
        (422, ["body", "current_file", "content_above_cursor"], "missing"),
        (422, ["body", "prompt"], "missing"),
        (422, ["body", "prompt"], "missing"),
        (422, ["body", "prompt_components", 0, "payload"], "missing"),
        (422, ["body", "inputs"], "missing"),
    ]


async def test_unknown_members_are_ignored_at_every_level(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)

    def with_unknown(value: Any) -> Any:
        if isinstance(value, list):
            return [with_unknown(item) for item in value]
        if isinstance(value, dict):
            inner = {name: with_unknown(item) for name, item in value.items()}
            return inner | {"intent": None, "generation_type": [1, {"x": "y"}], "": 0.5}
        return value

    for path, body in VALID.items():
        answer = await gateway.post(path, json=with_unknown(body), token=token)
        assert answer.status == 200, (path, answer)


NOT_JSON = {
    "empty": b"",
    "blank": b" \n",
    "cut": b'{"current_file": {',
    "trailing": b"{} {}",
    "list": b"[]",
    "text": b'"current_file"',
    "null": b"null",
    "not UTF-8": b'{"current_file": "\xff"}',
    "split letter": '{"a": "é"}'.encode()[:8] + b'"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "NaN": b'{"a": NaN}',
    "129 levels": b'{"a":' + b"[" * 128 + b"]" * 128 + b"}",
    "100,000 levels": b'{"a":' + b"[" * 100_000,
    "100,000 closed levels": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "number beyond floats": b'{"a": 1e999999}',
    "control character": b'{"a": "\x01"}',
    "half an escape": b'{"a": "\\ud8"}',
    "300,000 lists": b'{"a":[' + b"[]," * 300_000 + b"1]}",
    "300,000 lists in one another": b'{"a":[' + (b"[" * 100 + b"]" * 100 + b",") * 4_000 + b"1]}",
    "300,000 members": b"{%b}" % b",".join(b'"%d":1' % number for number in range(300_000)),
    "300,000 half letters": b'{"a": "%b"}' % (b"\\ud83d" * 300_000),
}


async def test_a_body_that_is_no_json_object_is_one_error_of_the_body(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    expected = [{"loc": ["body"], "msg": "JSON decode error", "type": "json_invalid"}]

    for path in VALID:
        for name, body in NOT_JSON.items():
            answer = await gateway.post(path, body=body, token=token)
            assert (path, name, answer.status, answer.json()["detail"]) == (path, name, 422, expected)


async def test_a_body_of_millions_of_values_is_refused_undecoded(
    gateway: RunningGateway,
) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    before = time.thread_time()

    for filler in (b"{},", b'"",', b"[[[]]],", b"1,", b'{"":""},'):
        body = b'{"a":[%b,%b 1]}' % (b"[" * 120 + b"]" * 120, filler * (16_000_000 // len(filler)))
        assert (await gateway.post("/v2/completions", body=body, token=token)).status == 422

    assert time.thread_time() - before < 2


async def test_signs_within_texts_are_no_values(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    body = json.dumps(FLAT | {"other": '{"a": [1, 2], "b": {}}\n' * 100_000}).encode()

    assert (await gateway.post("/v2/completions", body=body, token=token)).status == 200


async def test_128_levels_are_not_too_deep(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    body = json.dumps(FLAT)[:-1].encode() + b',"deep":' + b"[" * 127 + b"1" + b"]" * 127 + b"}"

    assert (await gateway.post("/v2/completions", body=body, token=token)).status == 200


async def test_brackets_within_texts_are_no_levels(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    body = with_member(FLAT, ("current_file", "content_above_cursor"), "[{" * 5_000)

    assert (await gateway.post("/v2/completions", json=body, token=token)).status == 200


async def test_a_lone_surrogate_is_read_as_the_replacement_character(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    texts = [
        (rb"a\ud800b", "a\ufffdb"),
        (rb"\udc00\ud800", "\ufffd\ufffd"),
        (rb"\ud83d\ude00 \uDBFF", "\U0001f600 \ufffd"),
        (rb"\\ud800 \ud800", "\\ud800 \ufffd"),
        (rb"\ud800\u0041", "\ufffdA"),
        (rb"\ud800\ud83d\ude00", "\ufffd\U0001f600"),
    ]

    for number, (written, read) in enumerate(texts, 1):
        body = b'{"inputs": {"diff": "<' + written + b'>"}}'
        answer = await gateway.post("/v1/prompts/generate_commit_message", body=body, token=token)
        assert answer.status == 200
        sent = json.dumps((await gateway.provider.request(number)).json(), ensure_ascii=False)
        assert json.dumps(f"<{read}>", ensure_ascii=False)[1:-1] in sent


async def test_numeric_text_and_integral_floats_are_integers(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)

    for written in ('"12"', '" 12 "', '"-1"', '"+3"', '"12.0"', "12.0", "-1", "1e2", "null", "true"):
        body = json.dumps(FLAT)[:-1] + f', "project_id": {written}}}'
        answer = await gateway.post("/v2/completions", body=body.encode(), token=token)
        assert (written, answer.status) == (written, 200)


async def test_what_is_no_whole_number_is_no_integer(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)

    for written in ('"12.5"', "12.5", '"1e2"', '""', '"x"', '"١٢"', "[1]", "{}", '"' + "9" * 5000 + '"'):
        body = json.dumps(FLAT)[:-1] + f', "project_id": {written}}}'
        answer = await gateway.post("/v2/completions", body=body.encode(), token=token)
        assert (written, shown(answer)) == (written, (422, ["body", "project_id"], "int_type"))


async def test_a_number_of_5000_digits_is_refused_and_does_no_harm(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    body = json.dumps(FLAT)[:-1] + ', "project_id": ' + "9" * 5000 + "}"

    answer = await gateway.post("/v2/completions", body=body.encode(), token=token)

    assert answer.status == 422


async def test_a_text_of_ten_megabytes_is_too_long_and_no_more(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)
    body = with_member(FLAT, ("current_file", "content_above_cursor"), "x" * 10_000_000)

    answer = await gateway.post("/v2/completions", json=body, token=token)

    assert shown(answer) == (422, ["body", "current_file", "content_above_cursor"], "string_too_long")


async def test_a_prompt_version_is_accepted_in_every_spelling_and_may_be_absent(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)

    for version in (1, 2, 3, "2", 3.0, None):
        answer = await gateway.post("/v2/completions", json=FLAT | {"prompt_version": version}, token=token)
        assert answer.status == 200


async def test_any_content_type_or_none_is_accepted(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=UNIT_PRIMITIVES)

    for content_type in ("text/plain", "application/json; charset=utf-8", "application/x-ndjson", None):
        answer = await gateway.post("/v2/completions", json=FLAT, token=token, headers={"Content-Type": content_type})
        assert answer.status == 200
