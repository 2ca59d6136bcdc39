"""The bodies of the code endpoints: limits, types, providers (contract 6.1 to 6.6, 10.1)."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from torana.api.code_reading import COMPLETIONS_PROMPT, MAX_CHOICES, Kind, Suggestion, read_components, read_flat
from torana.api.exchange import Exchange
from torana.chat import Message, ModelWish, Text
from torana.code.orders import Attachment, CompletionOrder, GenerationOrder
from torana.errors import Invalid, Refusal
from torana.headers import Headers
from torana.settings import CatalogueSettings, ProviderSettings, Settings

Json = dict[str, Any]
FLAT: Json = {
    "prompt_version": 1,
    "current_file": {"file_name": "app.py", "content_above_cursor": "def f", "content_below_cursor": "\n"},
}
ENDPOINT = "http://127.0.0.1:8000/v1"
CUSTOM = Settings(providers=ProviderSettings(custom_models=True))


def exchange(body: Any, **headers: str) -> Exchange:
    pairs = ((name.replace("_", "-"), value) for name, value in headers.items())
    made = Exchange("POST", "/", b"", Headers.of(pairs), "127.0.0.1", "r-1")
    made.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return made


def read(body: Any, kind: Kind = "completion", settings: Settings = CUSTOM, **headers: str) -> Suggestion:
    return read_flat(exchange(body, **headers), settings, kind)


def completion(body: Json, **headers: str) -> CompletionOrder:
    order = read(body, **headers).order
    assert isinstance(order, CompletionOrder)
    return order


def generation(body: Json) -> GenerationOrder:
    order = read(body, "generation").order
    assert isinstance(order, GenerationOrder)
    return order


def component(type_: str = "code_editor_completion", **payload: Any) -> Json:
    file = {"file_name": "app.go", "content_above_cursor": "package main\n", "content_below_cursor": ""}
    return {"type": type_, "payload": {**file, **payload}}


def attachment(content: str = "x", kind: str = "file", name: str = "a.go") -> Json:
    return {"type": "code_context", "payload": {"type": kind, "name": name, "content": content}}


def read_parts(*parts: Any, settings: Settings = CUSTOM, more: Json | None = None, **headers: str) -> Suggestion:
    return read_components(exchange({"prompt_components": list(parts), **(more or {})}, **headers), settings)


def put(body: Json, path: tuple[str | int, ...], value: Any) -> Json:
    changed = copy.deepcopy(body)
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


def error_of(attempt: Callable[[], object]) -> tuple[list[str | int], str]:
    with pytest.raises(Invalid) as caught:
        attempt()
    (row,) = caught.value.members["detail"]
    return row["loc"], row["type"]


FULL: Json = {
    **FLAT,
    "telemetry": [{"experiments": [{"name": "e", "variant": 1}], "requests": 1, "accepts": 1, "errors": 0}],
    "context": [{"type": "file", "name": "b.py", "content": "x"}],
}


@pytest.mark.parametrize(
    ("path", "limit", "more"),
    [
        (("project_path",), 255, {}),
        (("current_file", "file_name"), 255, {}),
        (("current_file", "language_identifier"), 255, {}),
        (("current_file", "content_above_cursor"), 100_000, {}),
        (("current_file", "content_below_cursor"), 100_000, {}),
        (("model_name",), 50, {}),
        (("model_api_key",), 2_000, {"model_provider": "litellm", "model_name": "qwen", "model_endpoint": ENDPOINT}),
        (("model_identifier",), 1_000, {"model_provider": "litellm", "model_endpoint": ENDPOINT}),
        (("telemetry", 0, "model_engine"), 50, {}),
        (("telemetry", 0, "model_name"), 50, {}),
        (("telemetry", 0, "lang"), 50, {}),
        (("context", 0, "type"), 1_024, {}),
        (("context", 0, "name"), 1_024, {}),
        (("context", 0, "content"), 500_000, {}),
    ],
)
def test_every_text_limit_of_v2_holds_in_characters(path: tuple[str | int, ...], limit: int, more: Json) -> None:
    body = {**FULL, **more}

    read(put(body, path, "é" * limit))

    assert error_of(lambda: read(put(body, path, "é" * (limit + 1)))) == (["body", *path], "string_too_long")


def test_an_endpoint_may_have_255_characters() -> None:
    body = {**FLAT, "model_provider": "litellm", "model_name": "qwen"}
    fits = ENDPOINT + "/" + "a" * (254 - len(ENDPOINT))

    assert completion({**body, "model_endpoint": fits}).wish.endpoint == fits
    assert error_of(lambda: read({**body, "model_endpoint": fits + "a"})) == (
        ["body", "model_endpoint"],
        "string_too_long",
    )


@pytest.mark.parametrize(("name", "limit"), [("telemetry", 10), ("context", 100)])
def test_every_list_limit_of_v2_holds(name: str, limit: int) -> None:
    read({**FULL, name: FULL[name] * limit})

    assert error_of(lambda: read({**FULL, name: FULL[name] * (limit + 1)})) == (["body", name], "too_long")


def test_texts_that_are_trimmed_are_measured_after_it() -> None:
    order = completion(put({**FLAT, "project_path": " " * 300}, ("current_file", "file_name"), f" {'a' * 252}.py  "))

    assert order.cursor.file_name == "a" * 252 + ".py"


@pytest.mark.parametrize(
    ("path", "value", "type_"),
    [
        (("prompt_version",), 4, "literal_error"),
        (("prompt_version",), 0, "literal_error"),
        (("prompt_version",), "two", "int_type"),
        (("prompt_version",), 1.5, "int_type"),
        (("project_path",), 1, "string_type"),
        (("project_id",), "a", "int_type"),
        (("current_file",), None, "dict_type"),
        (("current_file",), [], "dict_type"),
        (("current_file", "file_name"), None, "string_type"),
        (("current_file", "content_above_cursor"), 1, "string_type"),
        (("current_file", "content_below_cursor"), None, "string_type"),
        (("current_file", "language_identifier"), {}, "string_type"),
        (("model_provider",), "openai", "literal_error"),
        (("model_name",), [], "string_type"),
        (("model_endpoint",), 1, "string_type"),
        (("telemetry",), {}, "list_type"),
        (("telemetry", 0), "x", "dict_type"),
        (("telemetry", 0, "requests"), "x", "int_type"),
        (("telemetry", 0, "experiments"), "x", "list_type"),
        (("telemetry", 0, "experiments", 0, "variant"), None, "int_type"),
        (("stream",), "maybe", "bool_type"),
        (("choices_count",), 1.5, "int_type"),
        (("context",), "x", "list_type"),
        (("context", 0), 1, "dict_type"),
        (("context", 0, "content"), None, "string_type"),
        (("role_arn",), 1, "string_type"),
    ],
)
def test_a_wrong_type_in_v2_is_named_by_its_place(path: tuple[str | int, ...], value: Any, type_: str) -> None:
    assert error_of(lambda: read(put(FULL, path, value))) == (["body", *path], type_)


@pytest.mark.parametrize(
    "path",
    [
        ("current_file",),
        ("current_file", "file_name"),
        ("current_file", "content_above_cursor"),
        ("current_file", "content_below_cursor"),
        ("telemetry", 0, "requests"),
        ("telemetry", 0, "accepts"),
        ("telemetry", 0, "errors"),
        ("telemetry", 0, "experiments", 0, "name"),
        ("context", 0, "type"),
        ("context", 0, "name"),
        ("context", 0, "content"),
    ],
)
def test_a_missing_member_of_v2_is_named(path: tuple[str | int, ...]) -> None:
    body = copy.deepcopy(FULL)
    inner: Any = body
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]

    assert error_of(lambda: read(body)) == (["body", *path], "missing")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 200])
def test_what_is_no_json_object_is_no_body(body: bytes) -> None:
    assert error_of(lambda: read(body)) == (["body"], "json_invalid")
    assert error_of(lambda: read_components(exchange(body), CUSTOM)) == (["body"], "json_invalid")


def test_v2_is_read_leniently() -> None:
    order = completion(
        {
            "intent": "completion",
            "current_file": {**FLAT["current_file"], "language_identifier": None, "x": 1},
            "prompt_version": "1",
            "project_id": -1.0,
            "choices_count": "2",
            "telemetry": None,
            "context": None,
            "stream": None,
            "model_provider": None,
        }
    )

    assert (order.choices, order.stream, order.cursor.context) == (2, False, ())
    assert order.wish == ModelWish(role="completions_default")
    assert order.cursor.language == "python"


def test_a_lone_surrogate_reads_as_a_replacement() -> None:
    body = json.dumps(FLAT).encode().replace(b"def f", rb"a\ud800b\ud83d\ude00")

    order = read(body).order

    assert order.cursor.prefix == "a\ufffdb😀"


def test_a_missing_prompt_version_is_the_first() -> None:
    body = {"current_file": FLAT["current_file"], "prompt": 7}

    assert completion(body).prompt is None


MESSAGES = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]


@pytest.mark.parametrize("kind", ["completion", "generation"])
def test_a_prompt_is_a_text_in_version_two_and_messages_in_version_three(kind: Kind) -> None:
    text = read({**FLAT, "prompt_version": 2, "prompt": "do it"}, kind).order
    messages = read({**FLAT, "prompt_version": 3, "prompt": MESSAGES}, kind).order

    assert text.prompt == "do it"
    assert messages.prompt == (Message("system", (Text("a"),)), Message("user", (Text("b"),)))


@pytest.mark.parametrize(
    ("version", "prompt", "loc", "type_"),
    [
        (2, [], ["prompt"], "string_type"),
        (3, "x", ["prompt"], "list_type"),
        (3, [1], ["prompt", 0], "dict_type"),
        (3, [{"role": "robot", "content": "x"}], ["prompt", 0, "role"], "literal_error"),
        (3, [{"content": "x"}], ["prompt", 0, "role"], "missing"),
        (3, [{"role": "user"}], ["prompt", 0, "content"], "missing"),
        (3, [{"role": "user", "content": 5}], ["prompt", 0, "content"], "string_type"),
    ],
)
@pytest.mark.parametrize("kind", ["completion", "generation"])
def test_a_wrong_prompt_is_refused(kind: Kind, version: int, prompt: Any, loc: list[Any], type_: str) -> None:
    body = {**FLAT, "prompt_version": version, "prompt": prompt}

    assert error_of(lambda: read(body, kind)) == (["body", *loc], type_)


@pytest.mark.parametrize("kind", ["completion", "generation"])
def test_a_prompt_with_a_turn_that_says_nothing_gives_way_to_ours(kind: Kind) -> None:
    told = [{"role": "system", "content": "a"}, {"role": "user", "content": None}]

    assert read({**FLAT, "prompt_version": 3, "prompt": told}, kind).order.prompt is None


@pytest.mark.parametrize("version", [2, 3])
def test_generations_need_their_prompt(version: int) -> None:
    body = {**FLAT, "prompt_version": version}

    assert completion(body).prompt is None
    assert error_of(lambda: generation(body)) == (["body", "prompt"], "missing")
    assert generation(FLAT).prompt is None


@pytest.mark.parametrize(
    ("members", "wish", "cleaning", "share"),
    [
        ({}, ModelWish(role="completions_default"), "completion", 1.0),
        ({"model_name": "whatever"}, ModelWish(role="completions_default"), "completion", 1.0),
        ({"model_provider": "vertex-ai"}, ModelWish(role="completions_default"), "completion", 1.0),
        (
            {"model_provider": "vertex-ai", "model_name": " code-gecko@002 "},
            ModelWish(role="completions_default", client_name="vertex-ai/code-gecko@002"),
            "completion",
            1.0,
        ),
        (
            {"model_provider": "vertex-ai", "model_name": "codestral-2501"},
            ModelWish(role="completions_default", client_name="vertex-ai/codestral-2501"),
            "codestral_completion",
            0.3,
        ),
        ({"model_provider": "fireworks_ai"}, ModelWish(role="completions_fast"), "fast_completion", 0.3),
        (
            {"model_provider": "anthropic", "model_name": "claude-sonnet-4-6"},
            ModelWish(role="chat_default", client_name="anthropic/claude-sonnet-4-6"),
            "none",
            1.0,
        ),
        (
            {"model_provider": "gitlab", "model_name": ""},
            ModelWish(role="completions_default", feature_setting="code_completions"),
            "completion",
            1.0,
        ),
        (
            {"model_provider": "gitlab", "model_name": "gpt_5_2"},
            ModelWish(role="completions_default", feature_setting="code_completions", identifier="gpt_5_2"),
            "completion",
            1.0,
        ),
        (
            {
                "model_provider": "litellm",
                "model_name": "codegemma",
                "model_endpoint": ENDPOINT,
                "model_api_key": "k",
                "model_identifier": "custom_openai/x",
            },
            ModelWish(
                is_own=True,
                family="codegemma",
                endpoint=ENDPOINT,
                api_key="k",
                identifier="custom_openai/x",
                as_text_completion=True,
                is_flat=True,
            ),
            "none",
            1.0,
        ),
        (
            {"model_provider": "vertex-ai", "model_name": "mistral", "model_endpoint": ENDPOINT},
            ModelWish(is_own=True, family="mistral", endpoint=ENDPOINT, as_text_completion=True, is_flat=True),
            "none",
            1.0,
        ),
    ],
)
def test_the_provider_chooses_model_cleaning_and_share(
    members: Json, wish: ModelWish, cleaning: str, share: float
) -> None:
    order = completion({**FLAT, **members})

    assert (order.wish, order.cleaning, order.context_share) == (wish, cleaning, share)
    assert order.prompt_id == (COMPLETIONS_PROMPT if wish.is_own else "")


def test_a_self_hosted_completion_with_its_own_prompt_is_a_chat() -> None:
    own = {"model_provider": "litellm", "model_name": "mistral", "model_endpoint": ENDPOINT}

    order = completion({**FLAT, **own, "prompt_version": 2, "prompt": "do it"})

    assert (order.wish.as_text_completion, order.prompt_id, order.prompt) == (False, "", "do it")


@pytest.mark.parametrize("member", [{"model_endpoint": ENDPOINT}, {"model_api_key": "k"}])
@pytest.mark.parametrize("provider", [None, "litellm", "anthropic"])
def test_endpoints_and_keys_are_refused_while_custom_models_are_off(provider: str | None, member: Json) -> None:
    with pytest.raises(Refusal) as caught:
        read({**FLAT, "model_provider": provider, **member}, settings=Settings())

    assert (caught.value.status, caught.value.members) == (400, {"detail": "Custom models are disabled"})


def test_amazon_q_needs_its_role() -> None:
    body = {**FLAT, "model_provider": "amazon_q"}

    assert error_of(lambda: read(body)) == (["body", "role_arn"], "missing")
    assert read({**body, "role_arn": "arn:aws:iam::1"}).is_amazon_q
    part = component(model_provider="amazon_q")
    assert error_of(lambda: read_parts(part)) == (["body", "prompt_components", 0, "payload", "role_arn"], "missing")
    assert read_parts(component(model_provider="amazon_q", role_arn="a")).is_amazon_q
    assert read_parts(component(), more={"model_metadata": {"provider": "amazon_q", "name": "amazon_q"}}).is_amazon_q


@pytest.mark.parametrize(
    ("provider", "wanted"), [(None, True), ("vertex-ai", True), ("fireworks_ai", True), ("anthropic", False)]
)
def test_v2_uses_context_except_for_some_providers(provider: str | None, wanted: bool) -> None:
    order = completion({**FULL, "model_provider": provider})

    assert order.uses_context is wanted
    assert order.cursor.context == (Attachment("file", "b.py", "x"),)


@pytest.mark.parametrize(
    ("asked", "stream", "wanted"), [(0, False, 1), (-3, False, 1), (4, False, 4), (4, True, 1), (10**9, False, 8)]
)
def test_choices_are_bounded_and_never_streamed(asked: int, stream: bool, wanted: int) -> None:
    assert MAX_CHOICES == 8
    assert completion({**FLAT, "choices_count": asked, "stream": stream}).choices == wanted


def test_headers_tell_the_user_and_whether_prompts_may_be_cached() -> None:
    order = completion(FLAT, x_gitlab_global_user_id="u-1", x_gitlab_model_prompt_cache_enabled="false")

    assert (order.user, order.may_cache_prompt) == ("u-1", False)
    assert (completion(FLAT).user, completion(FLAT).may_cache_prompt) == ("", True)


@pytest.mark.parametrize("name", ["prompt_id", "agent_id"])
def test_a_generation_by_prompt_id_takes_the_prompt_as_instruction(name: str) -> None:
    order = generation({**FLAT, "prompt_version": 2, "prompt": "sort it", name: "code_suggestions/generations"})

    assert (order.prompt, order.instruction, order.prompt_id) == (None, "sort it", "code_suggestions/generations")
    assert (order.prompt_version, order.cleaning) == (None, "generation")
    assert order.template_inputs["user_instruction"] == "sort it"


def test_an_anthropic_generation_is_sent_as_it_came() -> None:
    body = {**FLAT, "prompt_version": 3, "prompt": MESSAGES, "model_provider": "anthropic"}

    order = generation(body)

    assert (order.cleaning, order.instruction, order.stop) == ("blank_only", "b", ("</new_code>",))
    assert order.wish == ModelWish(role="generation_default")


# v3 and v4


def test_the_first_component_decides_and_context_is_attached() -> None:
    wanted = read_parts(
        component("code_editor_generation", prompt_enhancer={"user_instruction": "serve", "libraries": None}),
        attachment("one"),
        attachment("two"),
        x_gitlab_language_server_version="6.3.0",
    )

    assert wanted.kind == "generation"
    assert [item.content for item in wanted.order.cursor.context] == ["one", "two"]
    assert wanted.order.uses_context
    assert isinstance(wanted.order, GenerationOrder)
    assert (wanted.order.instruction, wanted.order.inputs["libraries"]) == ("serve", None)


@pytest.mark.parametrize(
    ("version", "minimum", "wanted"),
    [
        ("", "6.3.0", False),
        ("6.2.9", "6.3.0", False),
        ("6.3.0", "6.3.0", True),
        ("6.3.0-beta.1", "6.3.0", False),
        ("6.3.0+build", "6.3.0", True),
        ("6.10.0", "6.3.0", True),
        ("10.0.0", "6.3.0", True),
        ("6.3", "6.3.0", False),
        ("nonsense", "6.3.0", False),
        ("9" * 5_000 + ".0.0", "6.3.0", False),
        ("7.17.0", "7.17.1", False),
        ("", "0.0.0", True),
    ],
)
def test_the_language_server_version_gates_attached_context(version: str, minimum: str, wanted: bool) -> None:
    settings = Settings(catalogue=CatalogueSettings(context_min_ls_version=minimum))

    read_it = read_parts(component(), attachment(), settings=settings, x_gitlab_language_server_version=version)

    assert read_it.order.uses_context is wanted


GENERATION = "code_editor_generation"


@pytest.mark.parametrize(
    ("type_", "member", "limit"),
    [
        ("code_editor_completion", "file_name", 255),
        ("code_editor_completion", "content_above_cursor", 100_000),
        ("code_editor_completion", "content_below_cursor", 100_000),
        ("code_editor_completion", "language_identifier", 255),
        (GENERATION, "content_above_cursor", 100_000),
        (GENERATION, "prompt", 400_000),
    ],
)
def test_every_limit_of_an_editor_component_holds(type_: str, member: str, limit: int) -> None:
    read_parts(component(type_, **{member: "é" * limit}))

    loc = ["body", "prompt_components", 0, "payload", member]
    assert error_of(lambda: read_parts(component(type_, **{member: "é" * (limit + 1)}))) == (loc, "string_too_long")


@pytest.mark.parametrize(("member", "limit"), [("kind", 1_024), ("name", 1_024), ("content", 100_000)])
def test_every_limit_of_an_attachment_holds(member: str, limit: int) -> None:
    read_parts(component(), attachment(**{member: "é" * limit}))

    loc = ["body", "prompt_components", 1, "payload", "type" if member == "kind" else member]
    attempt = lambda: read_parts(component(), attachment(**{member: "é" * (limit + 1)}))  # noqa: E731
    assert error_of(attempt) == (loc, "string_too_long")


def test_between_one_and_a_hundred_components_are_taken() -> None:
    read_parts(component(), *[attachment()] * 99)

    loc = ["body", "prompt_components"]
    assert error_of(lambda: read_parts(component(), *[attachment()] * 100)) == (loc, "too_long")
    assert error_of(read_parts) == (loc, "too_short")
    assert error_of(lambda: read_components(exchange({}), CUSTOM)) == (loc, "missing")


@pytest.mark.parametrize("member", ["source", "version"])
def test_a_component_may_say_where_it_comes_from(member: str) -> None:
    read_parts({**component(), "metadata": {member: "é" * 255}})
    read_parts({**component(), "metadata": None})

    long = {**component(), "metadata": {member: "é" * 256}}
    assert error_of(lambda: read_parts(long)) == (
        ["body", "prompt_components", 0, "metadata", member],
        "string_too_long",
    )


@pytest.mark.parametrize(
    ("part", "loc", "type_"),
    [
        (1, [], "dict_type"),
        ({}, ["type"], "missing"),
        ({"type": "other", "payload": {}}, ["type"], "literal_error"),
        (attachment(), ["type"], "literal_error"),
        ({"type": GENERATION}, ["payload"], "missing"),
        ({"type": GENERATION, "payload": {}}, ["payload", "file_name"], "missing"),
        (component(model_provider="litellm"), ["payload", "model_provider"], "literal_error"),
        (component(stream="maybe"), ["payload", "stream"], "bool_type"),
        (component(choices_count="x"), ["payload", "choices_count"], "int_type"),
        (component(prompt={}), ["payload", "prompt"], "string_type"),
        (component(prompt=[{"role": "x"}]), ["payload", "prompt", 0, "role"], "literal_error"),
        (component(GENERATION, prompt=[]), ["payload", "prompt"], "string_type"),
        (component(GENERATION, prompt_enhancer=[]), ["payload", "prompt_enhancer"], "dict_type"),
        (component(GENERATION, prompt_version=1), ["payload", "prompt_version"], "string_type"),
    ],
)
def test_a_wrong_component_is_named_by_its_place(part: Any, loc: list[Any], type_: str) -> None:
    assert error_of(lambda: read_parts(part)) == (["body", "prompt_components", 0, *loc], type_)


def test_later_components_must_be_right_too() -> None:
    loc = ["body", "prompt_components", 1, "payload", "file_name"]

    assert error_of(lambda: read_parts(component(), {"type": GENERATION, "payload": {}})) == (loc, "missing")


def test_a_completion_component_takes_a_text_or_messages_as_prompt() -> None:
    assert read_parts(component(prompt="x")).order.prompt == "x"
    assert read_parts(component(prompt=MESSAGES)).order.prompt == (
        Message("system", (Text("a"),)),
        Message("user", (Text("b"),)),
    )


def test_model_metadata_wins_over_the_component_s_provider() -> None:
    gitlab = {"provider": "gitlab", "identifier": "gpt_5_2", "feature_setting": "code_completions"}
    own = {"provider": "openai", "name": "codegemma", "endpoint": ENDPOINT}

    managed = read_parts(component(model_provider="anthropic"), more={"model_metadata": gitlab}).order
    hosted = read_parts(component(), more={"model_metadata": own}).order

    assert (managed.wish.identifier, managed.wish.client_name, managed.cleaning) == ("gpt_5_2", "", "completion")
    assert managed.wish.role == "completions_default"
    assert (hosted.wish.endpoint, hosted.wish.as_text_completion, hosted.cleaning) == (ENDPOINT, True, "none")
    assert hosted.prompt_id == COMPLETIONS_PROMPT


def test_a_generation_component_carries_prompt_and_version() -> None:
    order = read_parts(
        component(GENERATION, prompt="hi", prompt_id="code_suggestions/generations", prompt_version="^1.0.0")
    ).order

    assert isinstance(order, GenerationOrder)
    assert (order.prompt, order.prompt_id, order.prompt_version) == (None, "code_suggestions/generations", "^1.0.0")
    assert order.instruction == "hi"
