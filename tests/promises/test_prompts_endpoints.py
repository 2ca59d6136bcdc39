"""POST /v1/prompts/{id} and /v2/prompts/{id}: named prompts, their versions, their failures (contract 8)."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.http_client import Answer
from tests.support.issuer import FakeIssuer
from tests.support.provider import Script, ScriptedProvider

from torana.errors import BadCatalogue

one_gateway = pytest.mark.asyncio(loop_scope="session")

V1, V2 = "/v1/prompts/", "/v2/prompts/"
SONNET = "claude-sonnet-4-6"
EXPLAIN = {"input": "Why?", "selected_text": "x = 1", "file_content": "", "language_info": ""}


async def ask(
    gateway: RunningGateway, path: str, inputs: Any = None, *, scopes: tuple[str, ...] = ("duo_chat",), **members: Any
) -> Answer:
    token = gateway.token(unit_primitives=scopes)
    return await gateway.post(path, json={"inputs": inputs or {}, **members}, token=token)


def write(
    folder: Path, version: str = "1.0.0", *, variant: str = "base", text: str = "Say {{ word }}", **more: Any
) -> Path:
    """A prompt `team/say` of an operator's; `more` are further members of the file."""
    path = folder / "prompts" / "team" / "say" / variant / f"{version}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    members = {"name": "Say", "unit_primitives": ["duo_chat"], "prompt_template": {"user": text}, **more}
    path.write_text(json.dumps(members))  # JSON is YAML
    return path


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    folder = tmp_path / "overlay"
    folder.mkdir()
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def saying(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("say")
    for version in ("1.0.0", "1.2.0", "1.3.0-dev", "2.0.0", "2.1.0", "3.0.0-rc.1"):
        write(folder, version, text=f"{version} says {{{{ word }}}}")
    async with (
        ScriptedProvider() as provider,
        FakeIssuer() as issuer,
        running_gateway(provider, issuer, folder, {"AIGW_CATALOG": str(folder)}) as gateway,
    ):
        yield gateway


@pytest.fixture
def say(saying: RunningGateway) -> RunningGateway:
    """One gateway with `team/say` in several versions; its provider begins anew."""
    saying.provider.requests.clear()
    saying.provider.follow(Script())
    saying.running.parts.traffic.forget()
    return saying


def sent_text(gateway: RunningGateway) -> str:
    return json.dumps(gateway.provider.requests[-1].json()["messages"])


# --- Answers ---


@one_gateway
async def test_v1_answers_with_a_json_string(say: RunningGateway) -> None:
    say.provider.answer_with(text='Hello "Mia"\n')

    answer = await ask(say, f"{V1}team/say", {"word": "w"})

    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.json() == 'Hello "Mia"\n'
    assert answer.header("x-aigw-prompt") == "team/say@1.2.0"
    assert answer.header("x-aigw-model") == f"anthropic/{SONNET}"


@one_gateway
async def test_v1_streams_the_bare_text(say: RunningGateway) -> None:
    say.provider.answer_with(pieces=["Hel", "lo", "\n\nMia"])

    answer = await ask(say, f"{V1}team/say", {"word": "w"}, stream=True)

    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert (answer.text, answer.is_whole) == ("Hello\n\nMia", True)


@one_gateway
async def test_v2_answers_with_content_and_usage(say: RunningGateway) -> None:
    say.provider.answer_with(text="Hello", input_tokens=10, output_tokens=20)

    answer = await ask(say, f"{V2}team/say", {"word": "w"})

    assert answer.json() == {"content": "Hello", "usage": {SONNET: {"input_tokens": 10, "output_tokens": 20}}}


@one_gateway
async def test_v2_leaves_usage_out_where_nobody_told_it(say: RunningGateway) -> None:
    answer = {"id": "x", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
    say.provider.answer_with(body={**answer, "model": SONNET, "stop_reason": "end_turn"})

    assert (await ask(say, f"{V2}team/say", {"word": "w"})).json() == {"content": "Hello"}


@one_gateway
async def test_v2_streams_lines_and_tells_the_usage_last(say: RunningGateway) -> None:
    say.provider.answer_with(pieces=["Hel\n", "l\u2028o\x85"], segment_bytes=1)

    answer = await ask(say, f"{V2}team/say", {"word": "w"}, stream=True)

    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    assert answer.is_whole
    assert answer.body.endswith(b"\n")
    lines = [json.loads(line) for line in answer.body.decode().splitlines()]  # wherever a reader may see an end
    assert lines[-1] == {"content": "", "usage": {SONNET: {"input_tokens": 25, "output_tokens": 7}}}
    assert all(line.keys() == {"content"} for line in lines[:-1])
    assert "".join(line["content"] for line in lines) == "Hel\nl\u2028o\x85"


@one_gateway
async def test_an_encoded_slash_is_a_slash(shared: RunningGateway) -> None:
    answer = await ask(shared, f"{V1}chat%2Fexplain_code", EXPLAIN, scopes=("explain_code",))

    assert answer.status == 200


@pytest.mark.parametrize(
    ("members", "stops"),
    [
        ({"model": {"params": {"stop": ["END", "STOP"], "timeout": 20}}}, ["END", "STOP"]),
        ({"model": {"params": {"stop": "END"}}}, ["END"]),
        ({"model": {"params": {"stop": ["END"]}}, "params": {"stop": ["OURS"], "timeout": 20}}, ["OURS"]),
    ],
)
async def test_stops_and_patience_reach_any_vendor_wherever_the_author_wrote_them(
    start_gateway: StartGateway, overlay: Path, members: dict[str, Any], stops: list[str]
) -> None:
    write(overlay, text="Hi", **members)
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    await ask(gateway, f"{V1}team/say")

    sent = gateway.provider.requests[0].json()
    assert (sent["stop_sequences"], sent.keys() & {"stop", "timeout"}) == (stops, set())


async def test_a_date_is_there_without_being_sent(start_gateway: StartGateway, overlay: Path) -> None:
    write(overlay, text="It is {{ current_date }}")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    await ask(gateway, f"{V1}team/say")
    assert "{{" not in sent_text(gateway)
    assert " 20" in sent_text(gateway)
    await ask(gateway, f"{V1}team/say", {"current_date": "August 22, 2026"})
    assert "It is August 22, 2026" in sent_text(gateway)


@one_gateway
async def test_inputs_are_text_and_never_templates(say: RunningGateway) -> None:
    await ask(say, f"{V1}team/say", {"word": "{{ 7 * 7 }}{% if %}"})

    assert "{{ 7 * 7 }}{% if %}" in sent_text(say)


# --- Versions (contract 8.4) ---


@pytest.mark.parametrize(
    ("constraint", "used"),
    [
        (None, "1.2.0"),
        ("^1.0.0", "1.2.0"),
        ("~1.0.0", "1.0.0"),
        ("^2.0.1", "2.1.0"),
        ("1.0.0", "1.0.0"),
        (">=1.0.0,<2.1.0", "2.0.0"),
        ("1.*", "1.2.0"),
        ("1.3.0-dev", "1.3.0-dev"),
        ("3.0.0-rc.1", "3.0.0-rc.1"),
        ("1.0.1-dev", "1.0.0"),  # pins that do not exist lead to the nearest of their major, else to the highest
        ("9.9.9", "2.1.0"),
    ],
)
@one_gateway
async def test_a_constraint_chooses_the_version(say: RunningGateway, constraint: str | None, used: str) -> None:
    answer = await ask(say, f"{V1}team/say", {"word": "w"}, prompt_version=constraint)

    assert (answer.status, answer.header("x-aigw-prompt")) == (200, f"team/say@{used}")
    assert f"{used} says w" in sent_text(say)


@one_gateway
async def test_a_range_that_nothing_matches_is_400(say: RunningGateway) -> None:
    answer = await ask(say, f"{V1}team/say", {"word": "w"}, prompt_version="^3.0.0")

    assert answer.status == 400
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("constraint", ["latest", "^", ">>1"])
@one_gateway
async def test_an_unreadable_constraint_is_422(say: RunningGateway, constraint: str) -> None:
    answer = await ask(say, f"{V1}team/say", {"word": "w"}, prompt_version=constraint)

    assert answer.status == 422
    expected = {"loc": ["body", "prompt_version"], "msg": "Invalid version constraint", "type": "value_error"}
    assert answer.json()["detail"] == [expected]


@pytest.mark.parametrize("path", [V1, V2])
@one_gateway
async def test_an_unknown_prompt_is_404(shared: RunningGateway, path: str) -> None:
    answer = await ask(shared, f"{path}no/such")

    assert (answer.status, answer.json()["detail"]) == (404, "Prompt 'no/such' not found")


@one_gateway
async def test_a_missing_input_is_422_and_named(say: RunningGateway) -> None:
    answer = await ask(say, f"{V1}team/say", {"other": "w"})

    assert answer.status == 422
    (row,) = answer.json()["detail"]
    assert row["loc"] == ["body", "inputs", "word"]
    assert "word" in row["msg"]
    assert say.provider.requests == []


@one_gateway
async def test_inputs_themselves_are_required(say: RunningGateway) -> None:
    answer = await say.post(f"{V1}team/say", json={}, token=say.token(unit_primitives=["duo_chat"]))

    assert (answer.status, answer.json()["detail"][0]["loc"]) == (422, ["body", "inputs"])


@one_gateway
async def test_the_agents_prompt_is_not_served_here(shared: RunningGateway) -> None:
    answer = await ask(shared, f"{V1}chat/react")

    assert (answer.status, answer.json()["detail"][0]["msg"]) == (422, "Prompt 'chat/react' is not supported")


async def test_every_unit_primitive_of_the_prompt_is_needed(start_gateway: StartGateway, overlay: Path) -> None:
    write(overlay, unit_primitives=["duo_chat", "explain_code"])
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    denied = await ask(gateway, f"{V1}team/say", {"word": "w"})
    permitted = await ask(gateway, f"{V1}team/say", {"word": "w"}, scopes=("explain_code", "duo_chat"))

    assert (denied.status, denied.json()["detail"]) == (403, "Unauthorized to access 'team/say'")
    assert permitted.status == 200


@pytest.mark.parametrize("path", [V1, V2])
@one_gateway
async def test_amazon_q_is_501_only_for_those_who_may_have_the_prompt(shared: RunningGateway, path: str) -> None:
    asked = {"inputs": {}, "model_metadata": {"provider": "amazon_q", "name": "amazon_q", "role_arn": "arn:aws:iam::1"}}
    answers = [
        await shared.post(f"{path}model_configuration/check", json=asked, token=shared.token(unit_primitives=scopes))
        for scopes in ([], ["complete_code"])
    ]

    assert [(answer.status, answer.json()["detail"]) for answer in answers] == [
        (403, "Unauthorized to access 'model_configuration/check'"),
        (501, "Amazon Q is not available in this gateway"),
    ]
    assert shared.provider.requests == []


# --- Failures ---

PHRASES = [
    (400, "400: Bad Request"),
    (401, "401: Unauthorized"),
    (403, "403: Forbidden"),
    (404, "404: Not Found"),
    (418, "418: I'm a Teapot"),
    (429, "429: Too Many Requests"),
    (500, "500: Internal Server Error"),
    (503, "503: Service Unavailable"),
    (504, "504: Gateway Timeout"),
    (520, "520: Error"),
    (529, "529: Overloaded"),
    (599, "599: Error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [V1, V2])
@pytest.mark.parametrize(("status", "phrase"), PHRASES)
@one_gateway
async def test_a_failing_model_is_421_with_its_own_code_first(
    say: RunningGateway, path: str, status: int, phrase: str, stream: bool
) -> None:
    say.provider.fail_with(status)

    answer = await ask(say, f"{path}team/say", {"word": "w"}, stream=stream)

    assert (answer.status, answer.json()["detail"]) == (421, phrase)


@pytest.mark.parametrize("path", [V1, V2])
async def test_a_model_that_nobody_can_reach_is_421_and_503(gateway: RunningGateway, path: str) -> None:
    gateway.provider.server.stop_listening()

    answer = await ask(gateway, f"{path}chat/explain_code", EXPLAIN, scopes=("explain_code",))

    assert (answer.status, answer.json()["detail"]) == (421, "503: Service Unavailable")


async def test_a_silent_model_is_421_after_the_prompt_files_own_timeout(
    start_gateway: StartGateway, overlay: Path
) -> None:
    write(overlay, params={"timeout": 0.05})
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})
    gateway.provider.stall()

    answer = await ask(gateway, f"{V1}team/say", {"word": "w"})

    assert (answer.status, answer.json()["detail"]) == (421, "504: Gateway Timeout")


async def test_a_model_without_credentials_is_421_and_401(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"ANTHROPIC_API_KEY": "", "AIGW_OPENAI_MODEL": "m"})
    metadata = {"provider": "gitlab", "identifier": "claude_opus_4_6"}

    answer = await ask(gateway, f"{V1}chat/explain_code", EXPLAIN, scopes=("explain_code",), model_metadata=metadata)

    assert (answer.status, answer.json()["detail"]) == (421, "401: Unauthorized")
    assert gateway.provider.requests == []


@pytest.mark.parametrize("path", [V1, V2])
@one_gateway
async def test_a_stream_that_breaks_is_cut_without_its_final_chunk(say: RunningGateway, path: str) -> None:
    say.provider.answer_malformed("no_end")

    answer = await ask(say, f"{path}team/say", {"word": "w"}, stream=True)

    assert (answer.status, answer.is_whole) == (200, False)
    assert b"usage" not in answer.body


@pytest.mark.parametrize(("retries", "requests"), [(0, 1), (1, 2), (2, 3)])
async def test_the_prompt_file_says_how_often_it_is_tried_again(
    start_gateway: StartGateway, overlay: Path, retries: int, requests: int
) -> None:
    write(overlay, model={"params": {"max_retries": retries}})
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})
    gateway.provider.fail_with(500)

    answer = await ask(gateway, f"{V1}team/say", {"word": "w"})

    assert (answer.status, len(gateway.provider.requests)) == (421, requests)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after_events", [None, 0, 4])
@one_gateway
async def test_a_client_that_leaves_takes_the_upstream_call_with_it(
    say: RunningGateway, after_events: int | None, stream: bool
) -> None:
    say.provider.stall(after_events=after_events)
    token = say.token(unit_primitives=["duo_chat"])
    asked = {"inputs": {"word": "w"}, "stream": stream}

    async with await say.connect() as connection:
        await connection.send(say.request_bytes("POST", f"{V2}team/say", json=asked, token=token))
        request = await say.provider.request()

    await request.hung_up.wait()


# --- Variants, parameters and overlays ---

MODELS = {
    "models": [
        {
            "name": "tuned",
            "title": "Tuned",
            "families": ["special", "gpt"],
            "params": {"temperature": 0.9, "top_p": 0.5, "seed": 7},
            "deployments": [{"provider": "openai", "model": "tuned-1"}],
        }
    ]
}
TUNED = {"provider": "gitlab", "identifier": "tuned"}


@pytest.mark.parametrize(
    ("variants", "used"), [(["base", "gpt", "special"], "special"), (["base", "gpt"], "gpt"), (["base"], "base")]
)
async def test_the_first_family_that_has_a_variant_wins_then_base(
    start_gateway: StartGateway, overlay: Path, variants: list[str], used: str
) -> None:
    (overlay / "models.yml").write_text(json.dumps(MODELS))
    for variant in variants:
        write(overlay, variant=variant, text=f"{variant} says {{{{ word }}}}")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    answer = await ask(gateway, f"{V1}team/say", {"word": "w"}, model_metadata=TUNED)

    assert answer.status == 200
    assert f"{used} says w" in sent_text(gateway)


async def test_the_prompt_files_parameters_win_over_the_models(start_gateway: StartGateway, overlay: Path) -> None:
    (overlay / "models.yml").write_text(json.dumps(MODELS))
    write(overlay, model={"params": {"temperature": 0.2, "max_tokens": 55, "logit_bias": {"1": 2}}})
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    await ask(gateway, f"{V1}team/say", {"word": "w"}, model_metadata=TUNED)

    asked = gateway.provider.requests[0].json()
    assert asked["model"] == "tuned-1"
    assert (asked["temperature"], asked["top_p"], asked["seed"]) == (0.2, 0.5, 7)
    assert asked["logit_bias"] == {"1": 2}
    assert 55 in (asked.get("max_tokens"), asked.get("max_completion_tokens"))
    assert "max_retries" not in asked


async def test_an_overlay_replaces_a_shipped_prompt(start_gateway: StartGateway, overlay: Path) -> None:
    path = overlay / "prompts" / "chat" / "explain_code" / "base" / "1.0.0.yml"
    path.parent.mkdir(parents=True)
    path.write_text("name: Ours\nunit_primitives: [explain_code]\nprompt_template: {user: 'Ours: {{ input }}'}\n")
    gateway = await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    await ask(gateway, f"{V1}chat/explain_code", EXPLAIN, scopes=("explain_code",))

    assert "Ours: Why?" in sent_text(gateway)


async def test_of_two_overlays_the_later_wins(start_gateway: StartGateway, overlay: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    write(overlay, text="first {{ word }}")
    write(later, text="second {{ word }}")
    gateway = await start_gateway(env={"AIGW_CATALOG": f"{overlay}:{later}"})

    await ask(gateway, f"{V1}team/say", {"word": "w"})

    assert "second w" in sent_text(gateway)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: X\nunit_primitives: [duo_chat]\nprompt_templates: {user: hi}\n", 3),
        ("name: X\nunit_primitives: [nobody_knows]\nprompt_template: {user: hi}\n", 2),
        ("name: X\nunit_primitives: [duo_chat]\nprompt_template:\n  user: '{{ open'\n", 4),
        ("name: [\n", 1),
    ],
)
async def test_a_broken_overlay_refuses_the_start_with_file_and_line(
    start_gateway: StartGateway, overlay: Path, text: str, line: int
) -> None:
    path = write(overlay)
    path.write_text(text)

    with pytest.raises(BadCatalogue) as bad:
        await start_gateway(env={"AIGW_CATALOG": str(overlay)})

    assert f"{path}:{line}" in str(bad.value)


# --- The administrators' check (contract 10.5) ---


@pytest.mark.parametrize(("status", "expected"), [(200, 200), (500, 421), (401, 421), (404, 421)])
@one_gateway
async def test_the_models_check_answers_with_a_status(shared: RunningGateway, status: int, expected: int) -> None:
    shared.provider.answer_with(status=status)

    answer = await ask(shared, f"{V1}model_configuration%2Fcheck", scopes=("complete_code",), stream=False)

    assert answer.status == expected
    if expected == 421:
        assert answer.json()["detail"].startswith(f"{status}: ")
