"""Features that are declared, not programmed: one YAML file and one prompt make an endpoint."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer

from torana.catalog.feature_file import RESERVED
from torana.cli.check import check
from torana.errors import BadCatalogue

SONNET = "claude-sonnet-4-6"
SUMMARIZE = "/v1/summarize_text"
NOTES = "/v1/generate_release_notes"

PROMPT = {
    "name": "Translate",
    "unit_primitives": ["duo_chat"],
    "prompt_template": {"system": "Into {{ language }}.", "user": "{{ content }}"},
}
FEATURE = {
    "unit_primitive": "duo_chat",
    "components": ["translation", "text"],
    "inputs": {
        "content": {"type": "string", "max_chars": 5},
        "language": {"type": "string", "default": "German"},
    },
    "prompt": "translate@^1.0.0",
}


def write(
    folder: Path, stem: str = "translate", /, *, prompt_file: dict[str, Any] | None = None, **members: Any
) -> Path:
    """An operator's feature and its prompt; `members` replace those of FEATURE, None takes one out."""
    path = folder / "prompts" / "translate" / "base" / "1.0.0.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(PROMPT | (prompt_file or {})))  # JSON is YAML
    feature = folder / "features" / f"{stem}.yml"
    feature.parent.mkdir(exist_ok=True)
    told = {key: value for key, value in (FEATURE | members).items() if value is not None}
    feature.write_text(json.dumps(told, indent=1))
    return feature


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    folder = tmp_path / "overlay"
    folder.mkdir()
    return folder


def envelope(payload: Any, kind: str = "summarize_text", **members: Any) -> dict[str, Any]:
    return {"prompt_components": [{"type": kind, "payload": payload}], **members}


async def ask(
    gateway: RunningGateway, path: str, body: Any, *, scopes: tuple[str, ...] = ("summarize_text",)
) -> Answer:
    return await gateway.post(path, json=body, token=gateway.token(unit_primitives=scopes))


def found(answer: Answer) -> tuple[int, Any]:
    """Status, and of a 422 where and why."""
    if answer.status != 422:
        return answer.status, None
    (row,) = answer.json()["detail"]
    return 422, (row["loc"][1:], row["type"])


def sent(gateway: RunningGateway) -> dict[str, Any]:
    asked: dict[str, Any] = gateway.provider.requests[-1].json()
    return asked


# --- What is shipped ---


async def test_a_summary_comes_in_the_envelope_of_v3(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(text="In short.", input_tokens=30, output_tokens=4)

    answer = await ask(gateway, SUMMARIZE, envelope({"content": "A long story.", "focus": "the end"}))

    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    told = answer.json()
    model = {"engine": "agent", "name": "Summarize a text"}
    assert told["choices"] == [{"text": "In short.", "index": 0, "finish_reason": "stop"}]
    assert told["model"] == told["metadata"]["model"] == model
    assert told["metadata"]["usage"] == {"input_tokens": 30, "output_tokens": 4}
    assert isinstance(told["metadata"]["timestamp"], int)
    assert answer.header("x-aigw-prompt") == "summarize_text@1.0.0"
    assert answer.header("x-aigw-model") == f"anthropic/{SONNET}"
    asked = sent(gateway)
    assert "<focus>\nthe end\n</focus>\n<text>\nA long story.\n</text>" in json.dumps(asked["messages"]).replace(
        "\\n", "\n"
    )
    assert "at most 5 sentences" in json.dumps(asked["system"])


async def test_release_notes_are_written_from_a_list_of_changes(gateway: RunningGateway) -> None:
    body = envelope({"changes": ["Add a switch !7", "Fix #9"], "is_breaking_first": False}, "generate_release_notes")

    answer = await ask(gateway, NOTES, body, scopes=("generate_release_notes",))

    assert answer.json()["choices"][0]["text"] == "Hello from the scripted provider."
    asked = json.dumps(sent(gateway), ensure_ascii=False)
    assert "Add a switch !7" in asked
    assert "users of the product" in asked
    assert "Action needed" not in asked


async def test_a_feature_streams_the_bare_text(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(pieces=["In ", "short\n\n", "é"], segment_bytes=1)

    in_payload = await ask(gateway, SUMMARIZE, envelope({"content": "x", "stream": True}))
    in_body = await ask(gateway, SUMMARIZE, envelope({"content": "x"}, stream=True))
    payload_wins = await ask(gateway, SUMMARIZE, envelope({"content": "x", "stream": False}, stream=True))

    for answer in (in_payload, in_body):
        assert answer.header("content-type") == "text/event-stream; charset=utf-8"
        assert (answer.text, answer.is_whole) == ("In short\n\né", True)
    assert payload_wins.header("content-type") == "application/json"


async def test_an_empty_answer_is_no_choice(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(text="")

    answer = await ask(gateway, SUMMARIZE, envelope({"content": "x"}))

    assert (answer.status, answer.json()["choices"]) == (200, [])


async def test_an_answer_that_was_cut_says_so(gateway: RunningGateway) -> None:
    gateway.provider.answer_with(text="In sho", is_cut_by_limit=True)

    answer = await ask(gateway, SUMMARIZE, envelope({"content": "x"}))

    assert answer.json()["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(("upstream", "status"), [(500, 503), (429, 429), (401, 503), (400, 503)])
async def test_a_failing_model_is_told_as_on_the_code_endpoints(
    gateway: RunningGateway, upstream: int, status: int
) -> None:
    gateway.provider.fail_with(upstream)

    for stream in (False, True):
        answer = await ask(gateway, SUMMARIZE, envelope({"content": "x"}, stream=stream))

        assert answer.status == status
        assert answer.refusal.layer == "provider"


async def test_a_stream_that_breaks_later_is_cut(gateway: RunningGateway) -> None:
    gateway.provider.cut_after(4)

    answer = await ask(gateway, SUMMARIZE, envelope({"content": "x"}, stream=True))

    assert (answer.status, answer.is_whole) == (200, False)


# --- The envelope (contract 1.4) ---


async def test_the_first_component_that_is_understood_is_answered_and_the_others_are_not_looked_at(
    gateway: RunningGateway,
) -> None:
    components = [
        "no object",
        {"type": ["no text"]},
        {"type": "from_the_future", "payload": 7},
        {"type": "summarize_text", "payload": {"content": "this one", "tone": "kind"}, "extra": 1},
        {"type": "summarize_text", "payload": {"content": 7}},
    ]

    answer = await ask(gateway, SUMMARIZE, {"prompt_components": components, "telemetry": [], "intent": "x"})

    assert answer.status == 200
    assert "this one" in json.dumps(sent(gateway))


CONTENT = ["prompt_components", 0, "payload", "content"]


@pytest.mark.parametrize(
    ("body", "where", "type"),
    [
        ({}, ["prompt_components"], "missing"),
        ({"prompt_components": {}}, ["prompt_components"], "list_type"),
        ({"prompt_components": []}, ["prompt_components"], "too_short"),
        ({"prompt_components": [{}] * 101}, ["prompt_components"], "too_long"),
        ({"prompt_components": [{"type": "code_context"}]}, ["prompt_components"], "literal_error"),
        ({"prompt_components": [{"type": "summarize_text"}]}, ["prompt_components", 0, "payload"], "missing"),
        (envelope([]), ["prompt_components", 0, "payload"], "dict_type"),
        (envelope({}), CONTENT, "missing"),
        (envelope({"content": None}), CONTENT, "string_type"),
        (envelope({"content": 7}), CONTENT, "string_type"),
        (envelope({"content": "x" * 400_001}), CONTENT, "string_too_long"),
        (envelope({"content": "x", "stream": "maybe"}), [*CONTENT[:3], "stream"], "bool_type"),
        (envelope({"content": "x", "max_sentences": "five"}), [*CONTENT[:3], "max_sentences"], "int_type"),
        (envelope({"content": "x", "max_sentences": 1.5}), [*CONTENT[:3], "max_sentences"], "int_type"),
        ([], [], "json_invalid"),
    ],
)
async def test_a_wrong_member_is_named(gateway: RunningGateway, body: Any, where: list[Any], type: str) -> None:
    assert found(await ask(gateway, SUMMARIZE, body)) == (422, (where, type))
    assert gateway.provider.requests == []


@pytest.mark.parametrize(
    ("changes", "where", "type"),
    [
        (["a", 7], [1], "string_type"),
        (["x" * 10_001], [0], "string_too_long"),
        (["x"] * 1001, [], "too_long"),
        ("a, b", [], "list_type"),
    ],
)
async def test_the_items_of_a_list_are_measured_one_by_one(
    gateway: RunningGateway, changes: Any, where: list[Any], type: str
) -> None:
    body = envelope({"changes": changes}, "generate_release_notes")

    answer = await ask(gateway, NOTES, body, scopes=("generate_release_notes",))

    assert found(answer) == (422, (["prompt_components", 0, "payload", "changes", *where], type))


async def test_limits_hold_at_their_last_character(gateway: RunningGateway) -> None:
    at_limit = await ask(gateway, SUMMARIZE, envelope({"content": "é" * 400_000}))
    lists = envelope({"changes": ["x" * 10_000, *["y"] * 999]}, "generate_release_notes")

    assert at_limit.status == 200
    assert (await ask(gateway, NOTES, lists, scopes=("generate_release_notes",))).status == 200


async def test_numbers_and_flags_are_read_leniently(gateway: RunningGateway) -> None:
    await ask(gateway, SUMMARIZE, envelope({"content": "x", "max_sentences": " 3 "}))
    assert "at most 3 sentences" in json.dumps(sent(gateway))

    body = envelope({"changes": [], "is_breaking_first": "yes", "audience": None}, "generate_release_notes")
    await ask(gateway, NOTES, body, scopes=("generate_release_notes",))
    assert "Action needed" in json.dumps(sent(gateway))


# --- Who may ---


async def test_a_feature_asks_for_its_own_unit_primitive(gateway: RunningGateway) -> None:
    answer = await ask(gateway, SUMMARIZE, envelope({"content": "x"}), scopes=("duo_chat", "generate_release_notes"))

    assert (answer.status, answer.json()["detail"]) == (403, "Unauthorized to access summarize_text")
    assert answer.refusal.missing == "summarize_text"
    assert gateway.provider.requests == []


async def test_a_wrong_body_is_told_before_a_missing_right(gateway: RunningGateway) -> None:
    assert (await ask(gateway, SUMMARIZE, {}, scopes=())).status == 422
    assert (await gateway.post(SUMMARIZE, json={})).status == 401
    assert (await gateway.get(SUMMARIZE, token=gateway.token(unit_primitives=()))).status == 405


# --- Which model ---


async def test_a_feature_takes_the_model_that_the_administrator_chose(gateway: RunningGateway) -> None:
    for metadata, model in (
        ({"provider": "gitlab", "identifier": "claude_haiku_4_5"}, "claude-haiku-4-5-20251001"),
        ({"provider": "gitlab", "identifier": "", "feature_setting": "code_completions"}, "claude-haiku-4-5-20251001"),
        ({"provider": "gitlab", "identifier": None}, SONNET),
        ("no object", SONNET),
    ):
        await ask(gateway, SUMMARIZE, envelope({"content": "x"}, model_metadata=metadata))
        assert sent(gateway)["model"] == model

    unknown = envelope({"content": "x"}, model_metadata={"provider": "gitlab", "identifier": "no_such"})
    assert found(await ask(gateway, SUMMARIZE, unknown))[0] == 422


@pytest.mark.parametrize(
    ("family", "roles"),
    [
        *[(name, ["user"]) for name in ("mistral", "mixtral", "codegemma", "codellama")],
        ("llama3", ["system", "user"]),
    ],
)
async def test_families_whose_templates_refuse_a_system_turn_are_asked_in_the_first_user_turn(
    start_gateway: StartGateway, family: str, roles: list[str]
) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    metadata = {"provider": "openai", "name": family, "endpoint": f"{gateway.provider.url}/v1", "identifier": "m"}

    answer = await ask(gateway, SUMMARIZE, envelope({"content": "story"}, model_metadata=metadata))

    assert answer.status == 200
    messages = sent(gateway)["messages"]
    assert [message["role"] for message in messages] == roles
    told = json.dumps(messages)
    assert told.index("You summarize") < told.index("story")


async def test_a_feature_never_leaves_the_server_that_the_client_brings(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    metadata = {"provider": "openai", "name": "llama3", "endpoint": f"{gateway.provider.url}/own/v1"}

    answer = await ask(gateway, SUMMARIZE, envelope({"content": "story"}, model_metadata=metadata))

    assert answer.status == 200
    assert [request.path for request in gateway.provider.requests] == ["/own/v1/chat/completions"]


# --- An operator's own ---


async def test_an_overlays_feature_is_served_described_and_counted(start_gateway: StartGateway, overlay: Path) -> None:
    write(overlay, path="/v1/team/translate", description="Translate a text")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay), "AIGW_FASTAPI__OPENAPI_URL": "/openapi.json"})

    for prefix in ("", "/ai"):
        body = envelope({"content": "Hello"}, "text")
        assert (await ask(gateway, f"{prefix}/v1/team/translate", body, scopes=("duo_chat",))).status == 200
    assert "Into German." in json.dumps(sent(gateway))

    page = (await gateway.get("/openapi.json")).json()["paths"]["/v1/team/translate"]["post"]
    assert (page["tags"], page["summary"]) == (["Features"], "Translate a text")
    body_schema = page["requestBody"]["content"]["application/json"]["schema"]
    component, _others = body_schema["properties"]["prompt_components"]["items"]["anyOf"]
    assert component["properties"]["type"]["enum"] == ["translation", "text"]
    payload = component["properties"]["payload"]
    assert payload["required"] == ["content"]
    assert payload["properties"]["content"] == {"type": "string", "maxLength": 5}
    assert payload["properties"]["language"]["default"] == "German"
    metrics = (await gateway.monitoring("/metrics")).text
    assert 'handler="/v1/team/translate"' in metrics


async def test_a_reload_brings_and_takes_a_feature(start_gateway: StartGateway, overlay: Path) -> None:
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})
    body = envelope({"content": "Hello"}, "text")
    assert (await ask(gateway, "/v1/translate", body, scopes=("duo_chat",))).status == 404

    file = write(overlay)
    assert await gateway.running.reloader.reload()
    assert (await ask(gateway, "/v1/translate", body, scopes=("duo_chat",))).status == 200

    write(overlay, model="no_such_model")
    assert not await gateway.running.reloader.reload()
    assert (await ask(gateway, "/v1/translate", body, scopes=("duo_chat",))).status == 200

    file.unlink()
    assert await gateway.running.reloader.reload()
    assert (await ask(gateway, "/v1/translate", body, scopes=("duo_chat",))).status == 404


async def test_an_overlay_replaces_a_shipped_feature_whole(start_gateway: StartGateway, overlay: Path) -> None:
    write(overlay, "summarize_text")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    body = envelope({"content": "Hello"}, "translation")

    assert (await ask(gateway, SUMMARIZE, body)).status == 403
    assert (await ask(gateway, SUMMARIZE, body, scopes=("duo_chat",))).status == 200


JSON_PROMPT = {"params": {"answer": "json"}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('```json\n{"a": [1]}\n```\n', '{"a": [1]}'),
        (' \n{"a": "```"}', '{"a": "```"}'),
    ],
)
async def test_a_json_feature_answers_with_the_bare_object(
    start_gateway: StartGateway, overlay: Path, text: str, told: str
) -> None:
    write(overlay, answer="json", prompt_file=JSON_PROMPT)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})
    gateway.provider.answer_with(text=text)

    whole = await ask(gateway, "/v1/translate", envelope({"content": "x"}, "text"), scopes=("duo_chat",))
    streamed = await ask(
        gateway, "/v1/translate", envelope({"content": "x"}, "text", stream=True), scopes=("duo_chat",)
    )

    assert whole.json()["choices"][0]["text"] == told
    assert (streamed.text, streamed.is_whole) == (told, True)
    assert streamed.header("content-type") == "text/event-stream; charset=utf-8"


async def test_a_json_feature_is_not_kept_busy_by_a_fence_that_never_ends(
    start_gateway: StartGateway, overlay: Path
) -> None:
    write(overlay, answer="json", prompt_file=JSON_PROMPT)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})
    gateway.provider.answer_with(text="```" + "\n" * 20_000 + "x")
    before = time.thread_time()

    answer = await ask(gateway, "/v1/translate", envelope({"content": "x"}, "text"), scopes=("duo_chat",))

    assert answer.status == 503
    assert time.thread_time() - before < 0.25


@pytest.mark.parametrize("text", ["", "Here it is: {}", "[1]", '{"a": ', "```\nno\n```"])
async def test_a_json_feature_never_answers_with_anything_else(
    start_gateway: StartGateway, overlay: Path, text: str
) -> None:
    write(overlay, answer="json", prompt_file=JSON_PROMPT)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})
    gateway.provider.answer_with(text=text)

    for stream in (False, True):
        body = envelope({"content": "x"}, "text", stream=stream)
        assert (await ask(gateway, "/v1/translate", body, scopes=("duo_chat",))).status == 503


async def test_an_optional_input_reads_as_nothing_of_its_type(start_gateway: StartGateway, overlay: Path) -> None:
    inputs = {name: {"type": name, "required": False} for name in ("string", "integer", "boolean", "list")}
    text = "{{ string|tojson }} {{ integer|tojson }} {{ boolean|tojson }} {{ list|tojson }}"
    write(overlay, inputs=inputs, prompt_file={"prompt_template": {"user": text}})
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    await ask(gateway, "/v1/translate", envelope({}, "text"), scopes=("duo_chat",))

    assert '\\"\\" 0 false []' in json.dumps(sent(gateway)["messages"])


# --- What is refused at load ---

NO_TYPE = "unknown unit primitive `fly`, expected the name of a known unit primitive"


@pytest.mark.parametrize(
    ("name", "members", "line", "problem"),
    [
        ("translate", {"unit_primitve": "x"}, 18, "unknown member `unit_primitve`, did you mean `unit_primitive`?"),
        (
            "translate",
            {"inputs": {"content": {"type": "strin"}}},
            9,
            "`inputs.content.type` is 'strin', expected one of",
        ),
        ("translate", {"inputs": {"content": {"type": "string", "max_char": 1}}}, 10, "unknown member `max_char`"),
        ("translate", {"inputs": {}}, 7, "has no inputs"),
        (
            "translate",
            {"inputs": {"stream": {"type": "boolean"}}},
            8,
            "`stream` is no name of an input, expected another: ",
        ),
        (
            "translate",
            {"inputs": {"Content": {"type": "string"}}},
            8,
            "`Content` is no name of an input, expected small letters, digits and _",
        ),
        ("translate", {"inputs": {"content": {"type": "integer", "default": True}}}, 10, "`default` is no integer"),
        ("translate", {"inputs": {"content": {"type": "list", "default": "x"}}}, 10, "`default` is no list"),
        (
            "translate",
            {"inputs": {"content": {"type": "string", "max_chars": 2, "default": "abc"}}},
            11,
            "`default` is over its own limit",
        ),
        (
            "translate",
            {"inputs": {"content": {"type": "list", "max_items": 1, "default": ["a", "b"]}}},
            11,
            "`default` is over its own limit",
        ),
        (
            "translate",
            {"inputs": {"content": {"type": "list", "max_chars": 2, "default": ["ab", "abc"]}}},
            11,
            "`default` is over its own limit",
        ),
        (
            "translate",
            {"inputs": {"content": {"type": "string", "required": True, "default": "x"}}},
            8,
            "is required and has a default",
        ),
        ("translate", {"inputs": {"content": {"type": "string", "max_chars": 0}}}, 10, "`max_chars` is below 1"),
        ("translate", {"path": "translate"}, 18, "`path` is 'translate', expected a path such as"),
        ("translate", {"path": "/v1/prompts/x"}, 18, "`/v1/prompts/x` is the gateway's own"),
        ("translate", {"path": "/v1/{tail}"}, 18, "`path` is '/v1/{tail}'"),
        ("translate", {"name": "other"}, 18, "`name` is 'other', expected the file's own, translate"),
        ("Translate", {}, 1, "`Translate` is no name of a feature"),
        ("translate", {"answer": "yaml"}, 18, "`answer` is 'yaml', expected one of text, json"),
        ("translate", {"unit_primitive": "fly"}, 2, NO_TYPE),
        ("translate", {"unit_primitive": "duo_chatt"}, 2, "`duo_chatt`, did you mean `duo_chat`?"),
        ("translate", {"unit_primitive": None}, 1, "the file has no `unit_primitive`"),
        ("translate", {"prompt": "no_such"}, 17, "unknown prompt `no_such`"),
        ("translate", {"model": "no_such"}, 18, "unknown alias or model `no_such`"),
        ("translate", {"feature_setting": "no_such"}, 18, "unknown feature setting `no_such`"),
        ("translate", {"path": "/v1/summarize_text"}, 18, "path `/v1/summarize_text` is that of `summarize_text`"),
        ("translate", {"prompt": "translate@^2.0.0"}, 17, "`translate@^2.0.0` allows no version of variant base"),
        ("translate", {"prompt": "translate@1.0.1"}, 17, "`translate@1.0.1` allows no version of variant base"),
        ("translate", {"prompt": "translate@newest"}, 17, "`translate@newest` names no version"),
        ("translate", {"inputs": {"text": {"type": "string"}}}, 7, "prompt translate/base/1.0.0 needs `content`"),
        ("translate", {"inputs": {"contents": {"type": "string"}}}, 7, "needs `content`, did you mean `contents`?"),
        ("translate", {"answer": "json"}, 18, "prompt translate/base/1.0.0 answers text"),
        ("translate", {"requires": ["documents"], "model": "demo"}, 18, "model `demo` lacks documents"),
        ("translate", {"prompt": "chat/react"}, 17, "prompt chat/react/base/1.0.0 is not of the simple kind"),
    ],
)
async def test_a_faulty_feature_is_refused_with_file_line_and_expectation(
    overlay: Path, start_gateway: StartGateway, name: str, members: dict[str, Any], line: int, problem: str
) -> None:
    file = write(overlay, name, **members)

    result = CliRunner().invoke(check, ["--json", "--catalog", str(overlay)])
    told = json.loads(result.output)["problems"]

    assert result.exit_code == 1
    assert [each for each in told if problem in each and each.startswith(f"{file}:{line}: ")], told
    with pytest.raises(BadCatalogue):
        await start_gateway(env={"AIGW_CATALOG": str(overlay)})


async def test_a_model_that_a_caller_names_must_be_able_too(overlay: Path, start_gateway: StartGateway) -> None:
    write(overlay, requires=["tools"])
    model = "models:\n- {name: plain, title: Plain, deployments: [{provider: anthropic, model: p}]}\n"
    (overlay / "models.yml").write_text(model)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay), "ANTHROPIC_API_KEY": "k"})
    named = {"model_metadata": {"provider": "gitlab", "identifier": "plain"}}

    answer = await ask(gateway, "/v1/translate", envelope({"content": "Hallo"}, "text", **named), scopes=("duo_chat",))

    assert answer.status == 422
    assert answer.json()["detail"][0]["msg"] == "This model lacks tools"
    assert gateway.provider.requests == []


def test_a_prompt_asks_for_abilities_through_its_features(overlay: Path) -> None:
    file = write(overlay, prompt_file={"params": {"requires": ["tools"]}})

    told = json.loads(CliRunner().invoke(check, ["--json", "--catalog", str(overlay)]).output)["problems"]

    expected = "prompt translate/base/1.0.0 requires `tools`, expected the feature to require it too"
    assert told == [f"{file}:1: translate: {expected}"]


def test_files_that_cannot_be_features_are_named(overlay: Path) -> None:
    for name in ("features/deep/er.yml", "features/x.yaml"):
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (overlay / "features/README.md").write_text("hello")

    told = json.loads(CliRunner().invoke(check, ["--json", "--catalog", str(overlay)]).output)["problems"]

    assert told == [
        f"{overlay}/features/x.yaml:1: unknown name, expected features/<name>.yml",
        f"{overlay}/features/deep/er.yml:1: unknown name, expected features/<name>.yml",
    ]


def test_torana_check_refuses_a_limit_that_is_none(overlay: Path) -> None:
    file = write(overlay, limit="60 per fortnight")

    result = CliRunner().invoke(check, ["--catalog", str(overlay)])

    assert result.exit_code == 1
    (line,) = [number for number, text in enumerate(file.read_text().splitlines(), 1) if "fortnight" in text]
    assert f"error: {file}:{line}: unknown time `fortnight`" in result.output


async def test_no_feature_can_take_a_path_of_the_gateways_own(gateway: RunningGateway) -> None:
    own = [route.path for route in gateway.running.serving.entrance.routes.routes if route.feature is None]
    firsts = {parts[2] for path in own if (parts := path.split("/"))[1].startswith("v")}

    assert firsts <= RESERVED


# --- A prompt with alternatives (17.x and later ones) ---


@pytest.mark.parametrize(
    ("scopes", "status"),
    [(("ask_commit",), 200), (("duo_chat",), 200), (("ask_commit", "duo_chat"), 200), (("ask_issue",), 403), ((), 403)],
)
async def test_the_commit_reader_opens_to_the_right_of_each_major(
    gateway: RunningGateway, scopes: tuple[str, ...], status: int
) -> None:
    for version in ("v1", "v2"):
        answer = await ask(gateway, f"/{version}/prompts/chat/commit_reader", {"inputs": {"input": "?"}}, scopes=scopes)

        assert answer.status == status
        if status == 403:
            assert answer.json()["detail"] == "Unauthorized to access 'chat/commit_reader'"
            assert answer.refusal.missing == "ask_commit or duo_chat"


def test_an_alternative_that_nobody_knows_is_refused_at_load(overlay: Path) -> None:
    write(overlay, prompt_file={"params": {"any_of": ["duo_chat", "fly"]}})

    told = json.loads(CliRunner().invoke(check, ["--json", "--catalog", str(overlay)]).output)["problems"]

    assert len(told) == 1
    assert "translate/base/1.0.0.yml:1: unknown unit primitive `fly`" in told[0]
