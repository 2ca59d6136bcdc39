"""POST /v2/code/completions, its alias, and /v2/code/generations: shapes, and where each request goes (contract 6)."""

import json
from typing import Any

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.http_server import Request
from tests.support.provider import ScriptedProvider

one_gateway = pytest.mark.asyncio(loop_scope="session")

HAIKU, SONNET = "claude-haiku-4-5-20251001", "claude-sonnet-4-6"
COMPLETIONS, GENERATIONS = "/v2/code/completions", "/v2/code/generations"
SCOPES = ("complete_code", "generate_code")
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Complete: def add"}]


def body(above: str = "def add(a, b):\n    ", below: str = "", file_name: str = "app.py", **members: Any) -> Any:
    file = {"file_name": file_name, "content_above_cursor": above, "content_below_cursor": below}
    return {"prompt_version": 1, "current_file": file, **members}


async def ask(gateway: RunningGateway, asked: Any, path: str = COMPLETIONS, **headers: str) -> Answer:
    token = gateway.token(unit_primitives=SCOPES)
    return await gateway.post(path, json=asked, token=token, headers=headers)


async def text_of(gateway: RunningGateway, asked: Any, path: str = COMPLETIONS) -> str:
    """The suggestion, empty where there is no choice."""
    answer = await ask(gateway, asked, path)
    assert answer.status == 200
    choices = answer.json()["choices"]
    return choices[0]["text"] if choices else ""


def sent(gateway: RunningGateway) -> Request:
    (request,) = gateway.provider.requests
    return request


@one_gateway
async def test_the_answer_has_exactly_the_members_of_the_contract(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="return a + b\n", input_tokens=21, output_tokens=9)

    answer = await ask(shared, body(), **{"X-Gitlab-Enabled-Feature-Flags": "b_flag,a_flag"})

    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    found = answer.json()
    assert isinstance(found.pop("created"), int)
    assert found == {
        "id": "id",
        "model": {
            "engine": "anthropic",
            "name": HAIKU,
            "lang": "python",
            "tokens_consumption_metadata": {
                "input_tokens": 21,
                "output_tokens": 9,
                "max_output_tokens_used": False,
                "context_tokens_sent": 0,
                "context_tokens_used": 0,
            },
        },
        "experiments": [],
        "object": "text_completion",
        "choices": [{"text": "return a + b\n", "index": 0, "finish_reason": "length"}],
        "metadata": {"enabled_feature_flags": ["a_flag", "b_flag"]},
    }
    assert answer.header("x-aigw-model") == f"anthropic/{HAIKU}"
    # What it was made of, though the answer itself does not name it.
    assert (answer.header("x-aigw-prompt") or "").startswith("code_suggestions/completions@")


@pytest.mark.parametrize("text", ["", "  \n\t", "# only a comment"])
@one_gateway
async def test_an_empty_answer_is_no_choice_and_no_error(shared: RunningGateway, text: str) -> None:
    shared.provider.answer_with(text=text)

    answer = await ask(shared, body())

    assert (answer.status, answer.json()["choices"]) == (200, [])


@one_gateway
async def test_an_output_cap_that_was_hit_is_told(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="return a", is_cut_by_limit=True)

    answer = await ask(shared, body())

    assert answer.json()["model"]["tokens_consumption_metadata"]["max_output_tokens_used"] is True


@one_gateway
async def test_the_alias_answers_a_users_direct_connection(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="return a + b")
    token = shared.user_token(unit_primitives=["complete_code"])

    answer = await shared.post("/v2/completions", json=body(), token=token)

    assert answer.json()["choices"][0]["text"] == "return a + b"


@one_gateway
async def test_a_streamed_completion_is_the_models_text_and_nothing_else(shared: RunningGateway) -> None:
    shared.provider.answer_with(pieces=["return ", "a + b", "\n# grün"])

    answer = await ask(shared, body(stream=True))

    assert (answer.status, answer.is_whole) == (200, True)
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert answer.header("x-accel-buffering") == "no"
    assert answer.header("x-streaming-format") is None
    assert answer.text == "return a + b\n# grün"
    assert sent(shared).json()["stream"] is True


@one_gateway
async def test_letters_split_by_the_network_arrive_whole(shared: RunningGateway) -> None:
    shared.provider.answer_with(pieces=["grün ", "😀"], segment_bytes=1)

    answer = await ask(shared, body(stream=True))

    assert answer.text == "grün 😀"


# --- The provider matrix of contract 6.1 ---

DEFAULT, FAST, CHAT = (HAIKU, 128), (HAIKU, 64), (SONNET, 128)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, DEFAULT),
        ({"model_provider": None}, DEFAULT),
        ({"model_name": "whatever"}, DEFAULT),
        ({"model_provider": "vertex-ai"}, DEFAULT),
        ({"model_provider": "vertex-ai", "model_name": "code-gecko@002"}, DEFAULT),
        ({"model_provider": "vertex-ai", "model_name": "codestral@2405"}, DEFAULT),
        ({"model_provider": "vertex-ai", "model_name": "codestral-2501"}, DEFAULT),
        ({"model_provider": "vertex-ai", "model_name": "codestral-2508"}, DEFAULT),
        ({"model_provider": "fireworks_ai"}, FAST),
        ({"model_provider": "fireworks_ai", "model_name": "qwen2p5-coder-7b"}, FAST),
        ({"model_provider": "fireworks_ai", "model_name": "codestral-2501"}, FAST),
        ({"model_provider": "fireworks_ai", "model_name": "codestral-2508"}, FAST),
        ({"model_provider": "anthropic"}, CHAT),
        ({"model_provider": "anthropic", "model_name": "claude-3-5-sonnet-20240620"}, CHAT),
        ({"model_provider": "anthropic", "model_name": "claude-3-5-haiku-20241022"}, DEFAULT),
        ({"model_provider": "anthropic", "model_name": "claude-sonnet-4-20250514"}, CHAT),
        ({"model_provider": "anthropic", "model_name": "claude-opus-4-6"}, ("claude-opus-4-6", 128)),
        ({"model_provider": "gitlab"}, DEFAULT),
        ({"model_provider": "gitlab", "model_name": ""}, DEFAULT),
        ({"model_provider": "gitlab", "model_name": "claude_opus_4_6"}, ("claude-opus-4-6", 128)),
    ],
)
@one_gateway
async def test_each_provider_and_name_leads_to_its_model(
    shared: RunningGateway, members: dict[str, Any], expected: tuple[str, int]
) -> None:
    answer = await ask(shared, body(**members))

    request = sent(shared)
    asked = request.json()
    assert answer.status == 200
    assert (request.path, asked["model"], asked["max_tokens"]) == ("/v1/messages", *expected)
    assert "def add(a, b):" in json.dumps(asked["messages"])
    assert asked.get("stream") in (None, False)
    assert request.header("x-api-key") == "test-anthropic-key"
    assert answer.json()["model"]["engine"] == "anthropic"
    assert answer.json()["model"]["name"] == expected[0]


@one_gateway
async def test_the_catalogues_openai_model_is_asked_through_chat_completions(shared: RunningGateway) -> None:
    answer = await ask(shared, body(model_provider="gitlab", model_name="gpt_5_2"))

    assert (sent(shared).path, sent(shared).json()["model"]) == ("/v1/chat/completions", "gpt-5.2-2025-12-11")
    assert (answer.json()["model"]["engine"], answer.json()["model"]["name"]) == ("openai", "gpt-5.2-2025-12-11")


@one_gateway
async def test_a_message_list_goes_to_anthropic_as_it_came(shared: RunningGateway) -> None:
    names = {"model_provider": "anthropic", "model_name": "claude-3-5-sonnet-20240620"}

    await ask(shared, body(prompt_version=3, prompt=MESSAGES, **names))

    asked = sent(shared).json()
    assert "Be brief." in json.dumps(asked["system"])
    assert [message["role"] for message in asked["messages"]] == ["user"]
    assert "Complete: def add" in json.dumps(asked["messages"])
    assert "def add(a, b)" not in json.dumps(asked)  # nothing of ours is added


@pytest.mark.parametrize(
    ("members", "loc"),
    [
        ({"model_provider": "vertex-ai", "model_name": "gemini-nobody-knows"}, ["body", "model_name"]),
        ({"model_provider": "fireworks_ai", "model_name": "code-gecko@002"}, ["body", "model_name"]),
        ({"model_provider": "anthropic", "model_name": "claude-nobody-knows"}, ["body", "model_name"]),
        ({"model_provider": "gitlab", "model_name": "nobody_knows"}, ["body", "model_name"]),
        ({"model_provider": "acme"}, ["body", "model_provider"]),
        ({"model_provider": "litellm", "model_name": "mistral"}, ["body", "model_endpoint"]),
        ({"model_provider": "litellm", "model_identifier": "bedrock/nobody.knows"}, ["body", "model_identifier"]),
    ],
)
@one_gateway
async def test_an_unknown_provider_or_pair_is_422_before_any_permission(
    shared: RunningGateway, members: dict[str, Any], loc: list[str]
) -> None:
    answer = await shared.post(COMPLETIONS, json=body(**members), token=shared.token(unit_primitives=[]))

    assert (answer.status, answer.json()["detail"][0]["loc"]) == (422, loc)
    assert shared.provider.requests == []


@one_gateway
async def test_amazon_q_is_403_without_its_unit_primitive_and_501_with_it(shared: RunningGateway) -> None:
    asked = body(model_provider="amazon_q", role_arn="arn:aws:iam::1:role/q")

    denied = await ask(shared, asked)
    token = shared.token(unit_primitives=["amazon_q_integration"])
    permitted = await shared.post(COMPLETIONS, json=asked, token=token)

    assert (denied.status, denied.json()["detail"]) == (403, "Unauthorized to access code completions")
    assert (permitted.status, permitted.json()["detail"]) == (501, "Amazon Q is not available in this gateway")
    assert shared.provider.requests == []


# --- Generations (contract 6.2) ---


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"model_provider": "vertex-ai", "model_name": "gemini-nobody-knows"}, 422),
        ({"model_provider": "fireworks_ai", "model_name": "code-gecko@002"}, 422),
        ({"model_provider": "vertex-ai", "model_name": "code-gecko@002"}, 200),
        ({"model_provider": "fireworks_ai", "model_name": "codestral-2501"}, 200),
        ({"model_provider": "vertex-ai", "model_name": " "}, 200),
        ({"model_name": "nobody-knows"}, 200),
    ],
)
@one_gateway
async def test_a_pair_that_the_default_answers_for_must_be_known(
    shared: RunningGateway, members: dict[str, Any], status: int
) -> None:
    shared.provider.answer_with(text="return a + b")

    answer = await ask(shared, body(**members), GENERATIONS)

    assert answer.status == status
    if status == 422:
        assert answer.json()["detail"][0]["loc"] == ["body", "model_name"]
    else:
        assert sent(shared).json()["model"] == SONNET


@one_gateway
async def test_a_generation_without_a_prompt_asks_the_default_model(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="x = 1\n")

    answer = await ask(shared, body(above="# set x\n"), GENERATIONS)

    asked = sent(shared).json()
    assert asked["model"] == SONNET
    assert asked["stop_sequences"] == ["</new_code>"]
    assert 2048 <= asked["max_tokens"] <= 4096
    assert "# set x" in json.dumps(asked["messages"])
    found = answer.json()
    assert found["choices"] == [{"text": "x = 1\n", "index": 0, "finish_reason": "length"}]
    assert found["model"] == {"engine": "anthropic", "name": SONNET, "lang": "python"}


@one_gateway
async def test_a_generation_prompt_is_sent_as_one_user_turn(shared: RunningGateway) -> None:
    await ask(shared, body(prompt_version=2, prompt="\n  Write a parser\n"), GENERATIONS)

    assert len(sent(shared).json()["messages"]) == 1
    assert r"\n  Write a parser\n" in json.dumps(sent(shared).json()["messages"])


@pytest.mark.parametrize("path", [COMPLETIONS, GENERATIONS])
@one_gateway
async def test_messages_that_end_in_a_begun_answer_go_out_as_they_are(shared: RunningGateway, path: str) -> None:
    begun = [*MESSAGES, {"role": "assistant", "content": "<new_code>"}]
    asked = body(prompt_version=3, model_provider="anthropic", model_name=SONNET, prompt=begun)

    await ask(shared, asked, path)

    assert sent(shared).json()["messages"] == begun[1:]


@one_gateway
async def test_a_prompt_id_fills_the_registrys_prompt_with_the_users_instruction(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="x = 1")

    answer = await ask(
        shared,
        body(prompt_version=2, prompt="serve /healthz", prompt_id="code_suggestions/generations"),
        GENERATIONS,
    )

    asked = json.dumps(sent(shared).json())
    assert "serve /healthz" in asked
    assert "def add(a, b):" in asked
    assert answer.json()["model"]["engine"] == "agent"
    assert answer.json()["model"]["name"] == "Generation default"
    assert (answer.header("x-aigw-prompt") or "").startswith("code_suggestions/generations@")


@pytest.mark.parametrize("provider", [{}, {"model_provider": "anthropic"}])
@pytest.mark.parametrize("stream", [False, True])
@one_gateway
async def test_a_generation_ends_at_its_stop_text_whatever_its_model_makes_of_it(
    shared: RunningGateway, stream: bool, provider: dict[str, Any]
) -> None:
    shared.provider.answer_with(pieces=list("x = 1 </new>\n</new_code>\nThat sets x."))

    answer = await ask(shared, body("\n", prompt_version=2, prompt="Set x", stream=stream, **provider), GENERATIONS)

    text = answer.text if stream else answer.json()["choices"][0]["text"]
    assert text == "x = 1 </new>\n"


@one_gateway
async def test_an_id_that_is_no_prompts_is_told_as_far_as_one_would_go(shared: RunningGateway) -> None:
    answer = await ask(shared, body(prompt_version=2, prompt="x", prompt_id="x" * 100_000), GENERATIONS)

    assert (answer.status, answer.json()["detail"]) == (404, f"Prompt '{'x' * 200}' not found")


@one_gateway
async def test_generated_code_loses_its_fences_and_begins_on_a_new_line(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="```python\nx = 1\n```\n")

    assert await text_of(shared, body(above="# set x"), GENERATIONS) == "\nx = 1\n"


@one_gateway
async def test_generations_refuse_user_tokens(shared: RunningGateway) -> None:
    token = shared.user_token(unit_primitives=SCOPES)

    answer = await shared.post(GENERATIONS, json=body(), token=token)

    assert (answer.status, answer.json()["detail"]) == (403, "Unauthorized to access code generations")


# --- What of the file reaches the provider (contract 6.5) ---


@pytest.mark.parametrize("padding", ["x = 1\n", "# größer\n"])
async def test_a_huge_file_is_cut_far_from_the_cursor(
    gateway: RunningGateway, start_gateway: StartGateway, padding: str
) -> None:
    lines = 90_000 // len(padding)
    hosted = await start_gateway(env={"AIGW_CUSTOM_MODELS__ENABLED": "true"})
    asked = body(
        above=f"FAR_ABOVE = 1\n{padding * lines}def near_above():\n    ",
        below=f"\nNEAR_BELOW = 1\n{padding * lines}FAR_BELOW = 1\n",
        model_provider="litellm",
        model_name="codegemma",
        model_endpoint=f"{hosted.provider.url}/v1",
    )

    answer = await ask(hosted, asked)

    prompt = sent(hosted).json()["prompt"]
    assert answer.status == 200
    assert "def near_above():\n    <|fim_suffix|>\nNEAR_BELOW = 1" in prompt
    assert "FAR_ABOVE" not in prompt
    assert "FAR_BELOW" not in prompt
    assert len(prompt.encode()) < 8192 * 3.6  # the family's input limit, estimated


@one_gateway
async def test_a_file_that_fits_is_sent_whole(shared: RunningGateway) -> None:
    above, below = "x = 1\n" * 16_000 + "last_above = ", "\nfirst_below = 1\n" + "y = 1\n" * 2_000

    await ask(shared, body(above=above, below=below))

    text = sent(shared).json()["messages"][0]["content"]
    text = text if isinstance(text, str) else "".join(part["text"] for part in text)
    assert above in text
    assert below.strip() in text


@one_gateway
async def test_attached_context_reaches_the_prompt_and_is_counted(shared: RunningGateway) -> None:
    context = [{"type": "file", "name": "lib.py", "content": "def helper(): ..."}]

    answer = await ask(shared, body(context=context))

    assert "def helper(): ..." in json.dumps(sent(shared).json()["messages"])
    figures = answer.json()["model"]["tokens_consumption_metadata"]
    assert figures["context_tokens_sent"] == figures["context_tokens_used"] > 0


@one_gateway
async def test_attached_context_is_not_used_with_anthropic(shared: RunningGateway) -> None:
    context = [{"type": "file", "name": "lib.py", "content": "def helper(): ..."}]

    answer = await ask(shared, body(context=context, model_provider="anthropic"))

    assert "def helper" not in json.dumps(sent(shared).json())
    figures = answer.json()["model"]["tokens_consumption_metadata"]
    assert (figures["context_tokens_sent"] > 0, figures["context_tokens_used"]) == (True, 0)


async def test_several_choices_come_where_the_model_can(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"ANTHROPIC_API_KEY": "", "AIGW_OPENAI_MODEL": "m"})
    choices = [
        {"index": n, "message": {"role": "assistant", "content": f"return {n}"}, "finish_reason": "stop"}
        for n in range(2)
    ]
    gateway.provider.answer_with(body={"id": "x", "model": "m", "choices": choices})

    answer = await ask(gateway, body(choices_count=2))

    assert sent(gateway).json()["n"] == 2
    assert [(row["text"], row["index"]) for row in answer.json()["choices"]] == [("return 0", 0), ("return 1", 0)]


# --- The quality rule (contract 6.7) ---

REPEATS = [
    # above, below, the model's answer, what is offered
    ("def add(a, b):\n    return ", "", "return a + b", "a + b"),
    ("def add(a, b):\n    return ", "", "    return a + b", "a + b"),
    ("def add(a, b):\n", "", "def add(a, b):\n    return a + b\n", "    return a + b\n"),
    ("total = (", ")\n", "a + b)", "a + b"),
    ("x = 1\n", "\nprint(x)\n", "y = 2\nprint(x)\n", "y = 2"),
    ("func main() {\n", "}\n", "\trun()\n}\n", "\trun()"),
    ("if (a) {\n", "}\n", "  if (b) {\n    run()\n  }\n}", "  if (b) {\n    run()\n  }"),
    ("while (a) {\n", "}\n", "}\n", ""),
]


@pytest.mark.parametrize("provider_members", [{}, {"model_provider": "fireworks_ai"}])
@pytest.mark.parametrize(("above", "below", "answered", "offered"), REPEATS)
@one_gateway
async def test_no_suggestion_repeats_what_stands_around_the_cursor(
    shared: RunningGateway, above: str, below: str, answered: str, offered: str, provider_members: dict[str, str]
) -> None:
    shared.provider.answer_with(text=answered)

    text = await text_of(shared, body(above, below, "app.js" if "{" in above else "app.py", **provider_members))

    assert text.rstrip() == offered.rstrip()


@one_gateway
async def test_a_last_line_that_is_the_suffixs_first_goes_even_where_the_code_misses_it(
    shared: RunningGateway,
) -> None:
    shared.provider.answer_with(text="if (b) {\n  run()\n}")

    text = await text_of(shared, body("", "}\n", "app.js"))

    assert text.rstrip() == "if (b) {\n  run()"


@pytest.mark.parametrize(("above", "below", "answered", "_offered"), REPEATS)
@one_gateway
async def test_anthropics_completions_come_back_byte_for_byte(
    shared: RunningGateway, above: str, below: str, answered: str, _offered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above, below, model_provider="anthropic")) == answered


@one_gateway
async def test_the_mark_that_our_own_prompt_shows_for_the_cursor_is_never_suggested(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="return a + b<cursor/>")

    assert await text_of(shared, body()) == "return a + b"
    assert "<cursor/>" in json.dumps(sent(shared).json())


@one_gateway
async def test_a_stray_asterisk_of_codestral_goes(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="** return a + b")

    text = await text_of(shared, body(model_provider="vertex-ai", model_name="codestral-2501"))

    assert text == "return a + b"


@pytest.mark.parametrize("file_name", ["app.py", "app.pl"])  # with a syntax tree, and without one
async def test_a_step_of_the_cleaning_can_be_left_out(start_gateway: StartGateway, file_name: str) -> None:
    gateway = await start_gateway(env={"AIGW_FEATURE_FLAGS__EXCL_POST_PROCESS": '["drop_comments"]'})
    gateway.provider.answer_with(text="# a comment")

    assert await text_of(gateway, body(file_name=file_name)) == "# a comment"


async def test_a_step_that_does_not_exist_is_told_at_start(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_F__CODE_SUGGESTIONS__EXCL_POST_PROC": '["drop_coments"]'})

    (line,) = [line for line in gateway.log.lines if "drop_coments" in json.dumps(line)]
    assert line["level"] == "warning"
    assert line["message"].startswith("AIGW_FEATURE_FLAGS__EXCL_POST_PROCESS: there is no step 'drop_coments', ignored")
    assert "did you mean drop_comments?" in line["message"]


@pytest.mark.parametrize(("sure", "found"), [([-0.1, -0.3], "y = 1"), ([-2.0, None, -1.2], ""), (None, "y = 1")])
async def test_a_fast_completion_that_its_model_is_unsure_of_is_dropped(
    start_gateway: StartGateway, provider: ScriptedProvider, sure: list[float | None] | None, found: str
) -> None:
    region = {"us-central1": {"endpoint": f"{provider.url}/v1", "identifier": "accounts/a/models/qwen2p5-coder-7b"}}
    gateway = await start_gateway(
        env={
            "FIREWORKS_API_KEY": "k",
            "AIGW_MODEL_ENDPOINTS__FIREWORKS_REGIONAL_ENDPOINTS": json.dumps(region),
            "AIGW_FEATURE_FLAGS__FIREWORKS_SCORE_THRESHOLD": '{"qwen2p5-coder-7b": -1.5}',
        }
    )
    choice = {"index": 0, "text": "y = 1", "finish_reason": "stop", "logprobs": {"token_logprobs": sure}}
    provider.answer_with(body={"id": "1", "model": "qwen", "choices": [choice]})

    text = await text_of(gateway, body("x = ", "\n", model_provider="fireworks_ai", model_name="qwen2p5-coder-7b"))

    assert text == found
    assert (sent(gateway).path.endswith("/completions"), sent(gateway).json()["logprobs"]) == (True, 1)


@pytest.mark.parametrize("realm", ["saas", None])
@pytest.mark.parametrize("bypass", [None, "true"])
async def test_flags_that_are_disallowed_for_the_requests_realm_are_taken_out(
    start_gateway: StartGateway, realm: str | None, bypass: str | None
) -> None:
    env = {
        "AIGW_FEATURE_FLAGS__DISALLOWED_FLAGS": '{"saas": ["b_flag"]}',
        "AIGW_AUTH__BYPASS_EXTERNAL_WITH_HEADER": "true",
    }
    gateway = await start_gateway(env=env)
    gateway.provider.answer_with(text="return a + b")
    flags = {"X-Gitlab-Realm": "saas", "X-Gitlab-Enabled-Feature-Flags": "a_flag,b_flag", "Bypass-Auth": bypass}
    token = gateway.token(unit_primitives=SCOPES, gitlab_realm=realm)

    answer = await gateway.post(COMPLETIONS, json=body(), token=token, headers=flags)

    assert answer.json()["metadata"] == {"enabled_feature_flags": ["a_flag"]}
