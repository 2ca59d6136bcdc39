"""`torana models test` and `promote`: a model shows what it can do, and then goes into production."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from tests.support.http_server import Answering, LoopbackServer, Request
from tests.support.provider import ScriptedProvider

from torana.catalog.load import load_catalogue
from torana.cli import main
from torana.cli.record_editing import CannotEdit, add_record, find_record, set_members

MODELS = """\
# Ours.
models:
- name: rack   # in the cellar
  title: Rack
  stage: registered
  # It says so itself.
  capabilities: [chat, stream]
  deployments:
  - {provider: rack, model: rack-1}  # the only one

# And the other.
- {name: other, title: Other, deployments: [{provider: rack, model: other-1}]}
aliases:
- {name: mine, models: [other]}
"""

Run = Callable[..., Any]


@pytest.fixture
def overlay(tmp_path: Path, provider: ScriptedProvider) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "models.yml").write_text(MODELS)
    (folder / "providers.yml").write_text(f"- {{name: rack, dialect: chat_completions, base_url: {provider.url}}}\n")
    return folder


@pytest.fixture
def run(tmp_path: Path, overlay: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    env = {
        **dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "AIGW_CATALOG")),
        "AIGW_STATE_DIR": str(tmp_path / "state"),
    }

    async def invoke(*args: str, **more: str) -> Result:
        # Apart from the loop on which the provider answers.
        return await asyncio.to_thread(CliRunner(env={**env, **more}).invoke, main, ["models", *args])

    return invoke


def stage_of(folder: Path, name: str = "rack") -> str:
    return load_catalogue([folder]).models[name].stage


# --- test ---


async def test_a_deployment_that_is_not_there_is_named_beside_those_that_are(run: Run, overlay: Path) -> None:
    wrong = await run("test", "rack", "--catalog", str(overlay), "--deployment", "rack/rack-2")

    assert wrong.exit_code == 2
    assert "--deployment rack/rack-2: rack has none of this name, expected one of rack/rack-1" in wrong.stderr


async def test_what_works_and_what_fails_is_told_ability_by_ability(run: Run, overlay: Path) -> None:
    result = await run("test", "rack", "--catalog", str(overlay), "--json")

    report = json.loads(result.stdout)
    (told,) = report["deployments"]
    works = {each["ability"]: each["works"] for each in told["findings"]}
    assert result.exit_code == 0
    assert report["passed"] is True
    assert works | {"embeddings": None} == {
        "chat": True, "stream": True, "tools": False, "parallel_tools": False, "json": False, "images": False,
        "reasoning": False, "fill_in": True, "embeddings": None,
    }  # fmt: skip
    assert told["undeclared"] == ["fill_in", "embeddings"]


async def test_a_declared_ability_that_fails_is_a_no(run: Run, overlay: Path) -> None:
    (overlay / "models.yml").write_text(MODELS.replace("[chat, stream]", "[chat, stream, tools, documents]"))

    result = await run("test", "rack", "--catalog", str(overlay))

    assert result.exit_code == 1
    assert "rack/rack-1: declared, and fails: tools\n" in result.stdout
    assert "rack/rack-1: declared, and not asked for: documents\n" in result.stdout
    assert "NOT PASSED" in result.stdout


async def test_a_refusal_is_told_with_a_remedy(run: Run, overlay: Path, provider: ScriptedProvider) -> None:
    provider.fail_with(404)
    missing = await run("test", "rack", "--catalog", str(overlay))
    provider.fail_with(401)
    refused = await run("test", "rack", "--catalog", str(overlay))

    assert (missing.exit_code, refused.exit_code) == (1, 1)
    assert "`torana models discover URL` lists what the server has" in missing.stdout
    assert "the key is refused; is it this server's" in refused.stdout


async def test_a_model_is_tested_as_the_gateway_would_ask_it(
    run: Run, overlay: Path, provider: ScriptedProvider
) -> None:
    """Without what it turns out to refuse: Azure's names hide models that know the limit's newer name alone."""
    text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    provider.fail_with(400, {"error": {"message": text, "code": "unsupported_parameter"}}, times=1)

    result = await run("test", "rack", "--catalog", str(overlay))

    assert "chat             works" in result.stdout
    first, *others = [request.json() for request in provider.requests if "messages" in request.json()]
    assert "max_tokens" in first
    assert all("max_completion_tokens" in asked and "max_tokens" not in asked for asked in others)


async def test_a_model_without_credentials_is_not_tested(run: Run) -> None:
    result = await run("test", "claude_opus_4_6")

    assert result.exit_code == 1
    assert "no credentials for anthropic/claude-opus-4-6: set the provider's key" in result.output


async def test_a_server_that_is_in_no_catalogue_is_tested_by_its_address(
    run: Run, provider: ScriptedProvider, tmp_path: Path
) -> None:
    provider.models = ["only-one"]

    result = await run("test", "--url", provider.url, "--out", str(tmp_path / "report.json"))

    report = json.loads((tmp_path / "report.json").read_text())
    assert result.exit_code == 0, result.output
    assert (report["model"], report["record"]) == ("only-one", "")
    asked = [request for request in provider.requests if request.method == "POST"]
    assert {request.path for request in asked} == {"/v1/chat/completions", "/v1/completions", "/v1/embeddings"}
    assert {request.json()["model"] for request in asked} == {"only-one"}


async def test_of_a_server_with_several_models_one_must_be_named(run: Run, provider: ScriptedProvider) -> None:
    result = await run("test", "--url", provider.url)

    assert result.exit_code == 2
    assert "expected one of: claude-sonnet-4-6, gpt-5-mini-2025-08-07" in result.output
    assert (await run("test")).exit_code == 2


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9 tells none: is the server running?"),
        ("http://[::1", "'http://[::1' is no URL, expected http://host:port"),
    ],
)
async def test_an_address_that_leads_to_no_server_is_told(run: Run, url: str, said: str) -> None:
    result = await run("test", "--url", url)

    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


async def test_a_server_of_which_nothing_works_has_not_passed(run: Run) -> None:
    result = await run("test", "--url", "http://127.0.0.1:9", "--model", "any")

    assert result.exit_code == 1
    assert result.stdout.endswith("\nNOT PASSED\n")


async def test_a_call_of_a_tool_json_a_picture_and_thoughts_are_recognised(run: Run, tmp_path: Path) -> None:
    """A server that can do all of it; the scripted one answers always the same."""

    async def handle(request: Request, answering: Answering) -> None:
        asked = request.json() if request.method == "POST" else {}
        message: dict[str, Any] = {"role": "assistant", "content": "red"}
        if "tools" in asked:
            city = '{"city": "Paris"}'
            call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": city}}
            message = {"role": "assistant", "tool_calls": [{**call, "index": 0}, {**call, "id": "2", "index": 1}]}
        if "response_format" in asked:
            message["content"] = '{"name": "Paris", "country": "France"}'
        details = {"reasoning_tokens": 4}
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "completion_tokens_details": details}
        whole = {"id": "x", "model": "m", "usage": usage, "choices": [{"index": 0, "finish_reason": "stop"}]}
        if request.path.endswith("/models"):
            await answering.whole(200, b'{"data": [{"id": "m"}]}', [("Content-Type", "application/json")])
        elif not request.path.endswith("/chat/completions"):
            await answering.whole(404, b"{}", [("Content-Type", "application/json")])
        elif asked.get("stream"):
            whole["choices"][0]["delta"] = message
            body = f"data: {json.dumps(whole)}\n\ndata: [DONE]\n\n".encode()
            await answering.whole(200, body, [("Content-Type", "text/event-stream")])
        else:
            whole["choices"][0]["message"] = message
            await answering.whole(200, json.dumps(whole).encode(), [("Content-Type", "application/json")])

    server = LoopbackServer(handle)
    await server.start()
    result = await run("test", "--url", server.url, "--json")
    await server.aclose()

    findings = {each["ability"]: each for each in json.loads(result.stdout)["deployments"][0]["findings"]}
    assert [name for name, each in findings.items() if not each["works"]] == ["fill_in", "embeddings"]
    assert findings["tools"]["detail"] == "called get_weather(Paris)"
    assert findings["parallel_tools"]["detail"] == "2 calls in one answer"
    assert findings["reasoning"]["detail"] == "4 tokens of thought"
    assert (findings["json"]["input_tokens"], findings["json"]["output_tokens"]) == (3, 5)


# --- promote ---


async def test_a_model_goes_into_production_after_its_test_and_the_rest_of_the_file_stays(
    run: Run, overlay: Path
) -> None:
    early = await run("promote", "rack", "--stage", "production", "--catalog", str(overlay))
    await run("test", "rack", "--catalog", str(overlay))
    late = await run("promote", "rack", "--stage", "production", "--catalog", str(overlay), "--json")

    assert (early.exit_code, late.exit_code) == (1, 0)
    assert "there is no report of a test" in early.output
    assert json.loads(late.stdout) == {
        "model": "rack", "from": "registered", "to": "production", "file": str(overlay / "models.yml"),
    }  # fmt: skip
    assert (overlay / "models.yml").read_text() == MODELS.replace("stage: registered", "stage: production")


async def test_a_report_about_another_record_or_of_a_failed_test_keeps_the_door_shut(run: Run, overlay: Path) -> None:
    where = ("--catalog", str(overlay))
    await run("test", "rack", *where)
    (overlay / "models.yml").write_text(MODELS.replace("rack-1", "rack-2"))
    other = await run("promote", "rack", "--stage", "production", *where)
    (overlay / "models.yml").write_text(MODELS.replace("[chat, stream]", "[chat, images]"))
    await run("test", "rack", *where)
    failed = await run("promote", "rack", "--stage", "production", *where)
    forced = await run("promote", "rack", "--stage", "production", "--force", *where)

    assert (other.exit_code, failed.exit_code, forced.exit_code) == (1, 1, 0)
    assert "is about another record" in other.output
    assert "did not pass" in failed.output


async def test_a_shipped_model_is_copied_into_the_operators_directory_first(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    where = ("--catalog", str(folder))

    result = await run(
        "promote",
        "gpt_5_2",
        "--stage",
        "deprecated",
        "--date",
        "2027-01-31",
        "--successor",
        "claude_sonnet_4_6",
        *where,
    )

    assert result.exit_code == 0, result.output
    shipped, changed = load_catalogue().models["gpt_5_2"], load_catalogue([folder]).models["gpt_5_2"]
    assert (changed.stage, changed.successor) == ("deprecated", "claude_sonnet_4_6")
    assert (changed.prices, changed.deployments) == (shipped.prices, shipped.deployments)
    back = await run("promote", "gpt_5_2", "--stage", "registered", *where)
    assert back.exit_code == 0, back.output
    assert (stage_of(folder, "gpt_5_2"), load_catalogue([folder]).models["gpt_5_2"].successor) == ("registered", "")


async def test_a_promotion_that_breaks_the_catalogue_leaves_the_file_as_it_was(run: Run, overlay: Path) -> None:
    result = await run("promote", "other", "--stage", "staging", "--catalog", str(overlay))

    assert result.exit_code == 1
    assert "mine: none of its models is in use" in result.output
    assert (overlay / "models.yml").read_text() == MODELS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}\n", "give each member a line of its own"),
        ("models: [{name: a, title: A, deployments: [{provider: demo, model: m}]}]", "give each record a line of its"),
    ],
)
async def test_a_file_that_takes_no_more_records_is_left_as_it_was(
    run: Run, overlay: Path, text: str, said: str
) -> None:
    (overlay / "models.yml").write_text(text)

    result = await run("promote", "gpt_5_2", "--stage", "staging", "--catalog", str(overlay))

    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert said in result.stderr
    assert (overlay / "models.yml").read_text() == text


async def test_a_model_that_nobody_knows_and_a_folder_that_is_none_are_told(run: Run, overlay: Path) -> None:
    unknown = await run("promote", "rock", "--stage", "staging", "--catalog", str(overlay))
    nowhere = await run("promote", "rack", "--stage", "staging", "--catalog", str(overlay / "gone"))
    tested = await run("test", "rock", "--catalog", str(overlay))

    assert (unknown.exit_code, nowhere.exit_code, tested.exit_code) == (1, 2, 1)
    assert "unknown model 'rock'" in unknown.stderr
    assert "is no directory" in nowhere.stderr
    assert "unknown model 'rock'" in tested.stderr


async def test_a_report_is_kept_although_it_cannot_be_written_elsewhere(run: Run, overlay: Path) -> None:
    where = ("--catalog", str(overlay))

    tested = await run("test", "rack", *where, "--out", str(overlay / "gone" / "report.json"))

    assert tested.exit_code == 2
    assert "cannot be written (FileNotFoundError)" in tested.stderr
    assert (await run("promote", "rack", "--stage", "production", *where)).exit_code == 0


async def test_a_file_keeps_its_line_ends_its_mode_and_its_place(run: Run, overlay: Path, tmp_path: Path) -> None:
    file, real = overlay / "models.yml", tmp_path / "real.yml"
    real.write_bytes(MODELS.replace("\n", "\r\n").encode())
    real.chmod(0o640)
    file.unlink()
    file.symlink_to(real)

    done = await run("promote", "rack", "--stage", "staging", "--catalog", str(overlay))
    after = real.read_bytes()
    refused = await run("promote", "other", "--stage", "staging", "--catalog", str(overlay))

    assert (done.exit_code, refused.exit_code) == (0, 1)
    changed = MODELS.replace("stage: registered", "stage: staging")
    assert after == real.read_bytes() == changed.replace("\n", "\r\n").encode()
    assert file.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(overlay)) == ["models.yml", "providers.yml"]


@pytest.mark.parametrize(
    "more", [("--stage", "deprecated"), ("--stage", "staging", "--successor", "other"), ("--stage", "retired"), ()]
)
async def test_wrong_usage_is_told(run: Run, overlay: Path, more: tuple[str, ...]) -> None:
    assert (await run("promote", "rack", "--catalog", str(overlay), *more)).exit_code == 2


# --- records in their files ---

FLOW = "models:\n- {name: a, stage: staging, title: T}  # why\n- name: b\n  title: |\n    T\n\n  # end\n"


@pytest.mark.parametrize(
    ("name", "members", "expected"),
    [
        ("a", {"stage": "production"}, FLOW.replace("staging", "production")),
        ("a", {"stage": None}, FLOW.replace(", stage: staging", "")),
        ("a", {"title": None}, FLOW.replace(", title: T}", "}")),
        ("a", {"successor": "b"}, FLOW.replace("name: a", "name: a, successor: b")),
        ("b", {"stage": "staging"}, FLOW.replace("name: b\n", "name: b\n  stage: staging\n")),
        ("b", {"title": None}, FLOW.replace("  title: |\n    T\n", "")),
        (
            "b",
            {"title": "U", "stage": "staging"},
            FLOW.replace("name: b\n  title: |\n    T\n", "name: b\n  stage: staging\n  title: U\n"),
        ),
        ("b", {"gone": None}, FLOW),
    ],
)
def test_a_member_is_changed_where_it_stands(name: str, members: dict[str, str | None], expected: str) -> None:
    assert set_members(FLOW, "models", name, members) == expected


def test_a_member_that_stands_before_the_name_goes_within_one_line_only() -> None:
    one_line = "models: [{stage: x, name: a}, {stage: x, title: T, name: b}]\n"

    assert set_members(one_line, "models", "a", {"stage": None}) == one_line.replace("stage: x, name: a", "name: a")
    assert set_members(one_line, "models", "b", {"stage": None}) == one_line.replace("stage: x, title", "title")
    with pytest.raises(CannotEdit, match="stands first"):
        set_members("models:\n- stage: x\n  name: a\n", "models", "a", {"stage": None})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "aliases: []\n",
        "models: []\n",
        "models: []\naliases: []\n",
        "models:\n- {name: x}",
        "models:\n  - name: x\n    y: 1\n\nz: 1\n",
    ],
)
def test_a_record_is_added_at_the_end_of_its_list(text: str) -> None:
    after = add_record(text, "models", "# note\n- name: new\n  more:\n  - 1")

    assert find_record(after, "models", "new") == "- name: new\n  more:\n  - 1"
    assert [line for line in text.splitlines() if line.strip() not in ("", "models: []")] == [
        line for line in after.splitlines() if line in text.splitlines() and line.strip() not in ("", "models: []")
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029"])
def test_whatever_ends_lines_a_change_is_made_in_its_own_record(end: str) -> None:
    # Word processors put some of them into texts, where nobody sees them.
    text = f"models:\n# first{end}# second\n- name: a{end}  title: T\n  stage: staging\n- name: b\n  title: U"

    changed = set_members(text, "models", "b", {"stage": "production"})
    without = set_members(text, "models", "a", {"title": None})

    assert changed == text.replace("name: b", "name: b\n  stage: production")
    assert without == text.replace(f"{end}  title: T", "")


_NAMES = st.text(alphabet="abcxyz_", min_size=1, max_size=6)


@given(
    st.lists(_NAMES, min_size=1, max_size=4, unique=True),
    st.sampled_from(
        ["- {{name: {0}, title: T}}", "- name: {0}\n  title: T", "- title: T # é\n  name: {0}\n  list: [1,\n    2]"]
    ),
    st.integers(0, 3),
)
def test_changing_one_record_leaves_the_others(names: list[str], form: str, at: int) -> None:
    text = "models:\n" + "\n".join(form.format(name) for name in names) + "\n"
    chosen = names[at % len(names)]

    changed = set_members(text, "models", chosen, {"stage": "staging"})
    back = set_members(changed, "models", chosen, {"stage": None})

    assert "stage: staging" in (find_record(changed, "models", chosen) or "")
    for name in names:
        if name != chosen:
            assert find_record(changed, "models", name) == find_record(text, "models", name)
    assert back == text
