"""`torana prompts`, `torana models` and `torana explain`: interface 2."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.support.access import LOCAL_KEY
from tests.support.keys import pem, rsa_key

from torana.catalog.load import load_catalogue
from torana.cli import main
from torana.cli.prompt_runs import read_cases

SAY = {
    "name": "Say",
    "unit_primitives": ["duo_chat"],
    "params": {"any_of": ["ask_commit", "ask_issue"]},
    "prompt_template": {"system": "Be {{ tone|default('kind') }}.", "user": "Say {{ word }}"},
}
FEATURE = {
    "unit_primitive": "duo_chat",
    "inputs": {"word": {"type": "string"}, "tone": {"type": "string", "default": "brief"}},
    "prompt": "team/say",
    "model": "claude_haiku_4_5",
    "limit": "5 per minute per user",
}


def write(folder: Path, version: str = "1.0.0", *, variant: str = "base", **members: Any) -> None:
    """A version of the prompt `team/say` in an overlay."""
    path = folder / "prompts" / "team" / "say" / variant / f"{version}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(SAY | members))  # JSON is YAML


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    folder = tmp_path / "overlay"
    write(folder)
    write(folder, "1.2.0", prompt_template={"system": "Be kind.", "user": "Tell {{ word }}"})
    write(folder, "1.0.0", variant="mistral", prompt_template={"user": "Mistral: {{ word }}"})
    return folder


Run = Callable[..., Result]


@pytest.fixture
def run(overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `torana ARGS…` over the overlay, in an empty directory, with the demo as the only provider."""
    monkeypatch.chdir(tmp_path)  # a `.env` of the checkout must not be read
    env: dict[str, str | None] = {
        **dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "AIGW_ENVIRONMENT")),
        "AIGW_CATALOG": str(overlay),
        "AIGW_STATE_DIR": str(tmp_path / "state"),
        "AIGW_SELF_SIGNED_JWT__SIGNING_KEY": pem(rsa_key(LOCAL_KEY)).replace("\n", "\\n"),
    }

    def run(*args: str, typed: str | None = None, **more: str | None) -> Result:
        return CliRunner().invoke(main, args, input=typed, env=env | more)

    return run


def told(result: Result) -> Any:
    return json.loads(result.stdout)


def add_feature(overlay: Path, **members: Any) -> None:
    path = overlay / "features" / "say.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(FEATURE | members))


# Every command


COMMANDS = [
    ("prompts",), ("prompts", "list"), ("prompts", "show"), ("prompts", "render"), ("prompts", "diff"),
    ("prompts", "test"), ("models",), ("models", "list"), ("models", "show"), ("explain",), ("explain", "request"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command, "--help")

    assert result.exit_code == 0
    assert len(command) == 1 or "--json" in result.output


def test_naming_a_command_loads_nothing_heavy() -> None:
    code = (
        "import sys; from torana.cli import main\n"
        "for args in (['prompts', 'test', '--help'], ['models', '--help'], ['explain', 'request', '--help']):\n"
        "    main(args, standalone_mode=False)\n"
        "print(sorted({'jinja2', 'uvicorn', 'httptools', 'yaml', 'jwt', 'msgspec'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set(json.loads(done.stdout.splitlines()[-1].replace("'", '"'))) <= {"msgspec"}


def test_a_faulty_catalogue_ends_with_2(run: Run, overlay: Path) -> None:
    (overlay / "models.yml").write_text("modles: []")

    for args in (("prompts", "list"), ("models", "list")):
        result = run(*args)
        assert (result.exit_code, "models.yml:1: unknown member `modles`" in result.stderr) == (2, True)


# torana prompts list, show


def test_prompts_are_listed_with_their_variants_and_versions(run: Run) -> None:
    assert told(run("prompts", "list", "team", "--json")) == {
        "team/say": {"base": ["1.0.0", "1.2.0"], "mistral": ["1.0.0"]}
    }
    assert "team/say  base 1.0.0, 1.2.0; mistral 1.0.0\n" in run("prompts", "list").stdout
    assert set(told(run("prompts", "list", "--json"))) > set(load_catalogue().prompts)


@pytest.mark.parametrize(
    ("args", "version", "why_version", "variant", "why_variant"),
    [
        ((), "1.2.0", "the highest that ^1.0.0 (default) allows", "base", "the model has no family"),
        (("--version", "~1.0.0"), "1.0.0", "the highest that ~1.0.0 allows", "base", "the model has no family"),
        (("--version", "1.0.0"), "1.0.0", "pinned by 1.0.0", "base", "the model has no family"),
        (("--version", "1.1.0"), "1.2.0", "the nearest one: 1.1.0 does not exist", "base", "the model has no family"),
        (
            ("--family", "mixtral"),
            "1.0.0",
            "the highest that ^1.0.0 (default) allows",
            "mistral",
            "the first of mixtral, mistral that exists",
        ),
        (
            ("--model", "gpt_5_2"),
            "1.2.0",
            "the highest that ^1.0.0 (default) allows",
            "base",
            "none for gpt",
        ),
    ],
)
def test_show_says_which_file_is_used_and_why(
    run: Run, args: tuple[str, ...], version: str, why_version: str, variant: str, why_variant: str
) -> None:
    found = told(run("prompts", "show", "team/say", *args, "--json"))

    assert (found["version"], found["why"]["version"]) == (version, why_version)
    assert (found["variant"], found["why"]["variant"]) == (variant, why_variant)
    assert found["file"].endswith(f"team/say/{variant}/{version}.yml")
    assert (found["needs"], found["any_of"]) == (["word"], ["ask_commit", "ask_issue"])


def test_an_operators_default_variant_is_named_as_the_reason(run: Run) -> None:
    result = run("prompts", "show", "team/say", AIGW_DEFAULT_PROMPTS='{"team/say": "mistral"}')

    assert "variant          mistral  (AIGW_DEFAULT_PROMPTS)" in result.stdout
    assert "unit primitives  duo_chat, ask_commit or ask_issue" in result.stdout
    assert "Mistral: {{ word }}" in result.stdout


def test_a_prompts_model_is_the_one_of_the_feature_that_uses_it(run: Run, overlay: Path) -> None:
    assert told(run("prompts", "show", "team/say", "--json"))["why"]["model"] == "chat_default, as the endpoint says"

    add_feature(overlay)

    found = told(run("prompts", "show", "team/say", "--json"))
    assert (found["model"], found["why"]["model"]) == ("claude_haiku_4_5", "claude_haiku_4_5, as feature say says")


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("no/such",), "Prompt 'no/such' not found\nremedy: `torana prompts list` shows the ids."),
        (("team/say", "--version", "^2.0.0"), "\nremedy: `torana prompts list` shows those that it has."),
        (("team/say", "--version", "newest"), "422 request_invalid: prompt_version: Invalid version constraint"),
        (("team/say", "--model", "no_such"), "unknown model 'no_such'; `torana models list` shows them"),
    ],
)
def test_what_a_request_would_be_refused_for_ends_with_1(run: Run, args: tuple[str, ...], problem: str) -> None:
    for command in ("show", "render"):
        result = run("prompts", command, *args)

        assert (result.exit_code, problem in result.stderr) == (1, True), result.output


# torana prompts render, diff


def test_render_prints_what_a_model_would_be_sent(run: Run, tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text('{"word": "{{ 7 }} é", "tone": "curt"}')
    pinned = ("--version", "1.0.0")

    text = run("prompts", "render", "team/say", "--input", "word=a=b", *pinned)
    file = told(run("prompts", "render", "team/say", "--inputs", "inputs.json", *pinned, "--json"))
    typed = told(run("prompts", "render", "team/say", "--inputs", "-", "--json", typed='{"word": 1}'))

    assert "--- system ---\nBe kind.\n\n--- user ---\nSay a=b\n" in text.stdout
    assert [message["content"] for message in file["messages"]] == ["Be curt.", "Say {{ 7 }} é"]
    assert typed["messages"][1] == {"role": "user", "content": "Tell 1"}


def test_render_says_what_a_template_could_not_do_with_its_inputs(run: Run, overlay: Path) -> None:
    write(overlay, "2.0.0", prompt_template={"user": "{{ word|items }}"})

    result = run("prompts", "render", "team/say", "--version", "2.0.0", "--input", "word=x")

    told = "refused: 422 request_invalid: inputs: Inputs do not fit the prompt (items needs a mapping)\n"
    assert (result.exit_code, result.stderr) == (1, told)


def test_a_part_of_no_id_is_told_of(run: Run) -> None:
    result = run("prompts", "list", "team/sya")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "no prompt has 'team/sya' in its id" in result.stderr


def test_an_input_that_no_template_reads_is_told_of(run: Run) -> None:
    row = json.dumps({"inputs": {"word": "x", "tine": "curt"}})

    rendered = run("prompts", "render", "team/say", "--version", "1.0.0", "--input", "word=x", "--input", "wird=y")
    tested = run("prompts", "test", "team/say", "--version", "1.0.0", "--data", "-", typed=f"{row}\n{row}\n")

    assert (rendered.exit_code, tested.exit_code) == (0, 0)
    assert rendered.stderr == "note: team/say/base/1.0.0 reads no 'wird', did you mean `word`?\n"
    assert tested.stderr == "note: team/say/base/1.0.0 reads no 'tine', expected the name of an input\n"


def test_render_fills_in_what_the_feature_would(run: Run, overlay: Path) -> None:
    add_feature(overlay)

    found = told(run("prompts", "render", "team/say", "--version", "1.0.0", "--input", "word=x", "--json"))

    assert found["messages"][0]["content"] == "Be brief."


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        ((), 1, "422 request_invalid: inputs.word"),
        (("--input", "word"), 2, "expected NAME=TEXT"),
        (("--inputs", "gone.json"), 2, "gone.json: cannot be read"),
        (("--inputs", "-"), 2, "-: is no JSON"),
    ],
)
def test_wrong_inputs_are_named(run: Run, args: tuple[str, ...], code: int, problem: str) -> None:
    result = run("prompts", "render", "team/say", *args, typed="[" * 5_000)

    assert (result.exit_code, problem in result.stderr) == (code, True), result.output


def test_files_of_windows_editors_are_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_bytes(b'\xef\xbb\xbf{"word": "x"}\r\n')
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"inputs": {"word": "x"}}\r\n\r\n')
    (tmp_path / "utf16.json").write_text('{"word": "x"}', encoding="utf-16")

    rendered = run("prompts", "render", "team/say", "--inputs", "inputs.json")
    tested = run("prompts", "test", "team/say", "--data", "rows.jsonl")
    wrong = run("prompts", "render", "team/say", "--inputs", "utf16.json")

    assert (rendered.exit_code, tested.exit_code) == (0, 0), (rendered.output, tested.output)
    assert (wrong.exit_code, "utf16.json: is no UTF-8" in wrong.stderr) == (2, True)


def test_diff_compares_files_and_with_inputs_what_they_become(run: Run) -> None:
    files = run("prompts", "diff", "team/say", "1.0.0", "1.2.0").stdout
    rendered = told(run("prompts", "diff", "team/say", "1.0.0", "mistral/1.0.0", "--input", "word=x", "--json"))
    equal = run("prompts", "diff", "team/say", "1.0.0", "1.0.0")

    assert files.startswith("--- team/say/base/1.0.0\n+++ team/say/base/1.2.0\n")
    assert "default('kind')" in files
    assert (rendered["from"], rendered["to"]) == ("team/say/base/1.0.0", "team/say/mistral/1.0.0")
    assert {"-Say x", "+Mistral: x"} <= set(rendered["diff"])
    assert (equal.stdout, equal.exit_code) == ("team/say/base/1.0.0 and team/say/base/1.0.0 are equal\n", 0)


@pytest.mark.parametrize("wanted", ["2.0.0", "base/2.0.0", "mistrall/1.0.0", "mistral/1.2.0"])
def test_diff_takes_no_other_version_for_one_that_is_not_there(run: Run, wanted: str) -> None:
    result = run("prompts", "diff", "team/say", "1.0.0", wanted)

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"team/say has no {wanted}, expected one of base/1.0.0, " in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("prompts", "show", "team/say", "--version", "1.9.0"),
        ("prompts", "diff", "team/say", "1.0.0", "1.9.0"),
        ("keys", "list"),
    ],
)
def test_what_a_command_tells_itself_is_not_told_by_the_log_as_well(
    run: Run, tmp_path: Path, args: tuple[str, ...]
) -> None:
    env = {**os.environ, "AIGW_CATALOG": str(tmp_path / "overlay"), "AIGW_GITLAB_URL": "http://127.0.0.1:9"}
    code = "from torana.cli import main; main()"
    command = [sys.executable, "-c", code, *args]

    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    assert "pinned prompt version" not in ended.stderr
    assert "keys could not be fetched" not in ended.stderr


# torana prompts test


@pytest.mark.parametrize("prompt_id", ["summarize_text", "generate_release_notes"])
def test_the_shipped_data_sets_pass_with_the_demo(run: Run, prompt_id: str) -> None:
    result = run("prompts", "test", prompt_id, "--json")

    (found,) = told(result)["runs"]
    assert (result.exit_code, found["ok"], found["deployment"]) == (0, True, "demo/torana-demo")
    assert len(found["rows"]) >= 3
    assert found["totals"]["output_tokens"] == sum(row["output_tokens"] for row in found["rows"]) > 0
    assert result.stderr == ""  # no terminal, no progress


def test_two_versions_are_compared_row_by_row(run: Run) -> None:
    data = '{"name": "one", "inputs": {"word": "x"}}\n\n{"inputs": {"word": "y"}}\n'

    args = ("prompts", "test", "team/say", "--data", "-", "--version", "1.0.0", "--against", "1.2.0")
    text = run(*args, typed=data)
    found = told(run(*args, "--json", typed=data))

    assert [each["version"] for each in found["runs"]] == ["1.0.0", "1.2.0"]
    assert [row["name"] for row in found["runs"][0]["rows"]] == ["one", "row 3"]
    assert text.exit_code == 0
    assert re.search(r"^input tokens: \d+ -> \d+ \([+-]\d+, [+-]\d+ %\)$", text.stdout, re.MULTILINE)
    assert re.search(r"^(one: equal answers|--- one, first)$", text.stdout, re.MULTILINE)


def test_a_version_is_not_compared_with_itself(run: Run) -> None:
    row = '{"inputs": {"word": "x"}}\n'
    args = ("prompts", "test", "team/say", "--data", "-")

    newest = run(*args, "--against", "1.2.0", typed=row)
    absent = run(*args, "--against", "2.0.0", typed=row)
    older = run(*args, "--against", "1.0.0", typed=row)

    assert (newest.exit_code, absent.exit_code) == (2, 2)
    assert "both runs would be team/say/base/1.2.0 (pinned by 1.2.0), expected an older one with --ag" in newest.stderr
    assert "(the nearest one: 2.0.0 does not exist), expected an older one with --against" in absent.stderr
    assert (older.exit_code, older.stdout.count(" of 1 good")) == (0, 2)


def test_two_models_are_compared(run: Run) -> None:
    args = ("--model", "demo", "--against-model", "chat_default", "--limit", "1", "--parallel", "1", "--json")

    found = told(run("prompts", "test", "summarize_text", *args))

    assert [(each["model"], len(each["rows"])) for each in found["runs"]] == [("demo", 1), ("demo", 1)]


PRICED = """\
models:
- name: cheap
  title: Cheap
  prices: {as_of: 2026-11-01, input: "1", output: "2"}
  deployments: [{provider: demo, model: torana-demo}]
- name: dear
  title: Dear
  prices: {as_of: 2026-11-01, input: "2", output: "4"}
  deployments: [{provider: demo, model: torana-demo}]
- name: unpriced
  title: Unpriced
  prices: {as_of: 2026-11-01, input: "1"}
  deployments: [{provider: demo, model: torana-demo}]
"""


def test_two_models_are_compared_by_what_they_cost(run: Run, overlay: Path) -> None:
    (overlay / "models.yml").write_text(PRICED)
    args = ("prompts", "test", "team/say", "--data", "-", "--model", "cheap", "--against-model", "dear")
    data = '{"inputs": {"word": "x"}}\n'

    text = run(*args, typed=data).stdout
    found = told(run(*args, "--json", typed=data))

    cheap, dear = (each["totals"] for each in found["runs"])
    expected = Decimal(cheap["input_tokens"] + 2 * cheap["output_tokens"]) / 1_000_000
    assert Decimal(cheap["cost_usd"]) == expected
    assert Decimal(dear["cost_usd"]) == 2 * expected
    assert found["change"] == {"input_tokens": 0, "output_tokens": 0, "cost_usd": cheap["cost_usd"]}
    assert re.search(r"^cost: \$0\.\d+ -> \$0\.\d+ \(\+0\.\d+, \+100 %\)$", text, re.MULTILINE)


def test_a_cost_that_nobody_knows_is_told_as_unknown(run: Run, overlay: Path) -> None:
    (overlay / "models.yml").write_text(PRICED)
    args = ("prompts", "test", "team/say", "--data", "-", "--model", "unpriced")
    data = '{"inputs": {"word": "x"}}\n'

    (found,) = told(run(*args, "--json", typed=data))["runs"]

    assert (found["rows"][0]["cost_usd"], found["totals"]["cost_usd"]) == (None, None)
    assert "cost unknown" in run(*args, typed=data).stdout


def test_answers_that_are_not_as_wanted_end_with_1_and_say_why(run: Run) -> None:
    rows = [
        {"inputs": {"word": "x"}, "contains": ["no such word"], "max_chars": 1, "lacks": ["demo"]},
        {"inputs": {}},
    ]

    result = run("prompts", "test", "team/say", "--data", "-", typed="\n".join(map(json.dumps, rows)))

    assert result.exit_code == 1
    for problem in ("lacks 'no such word'", "contains 'demo'", "at most 1 are wanted", "inputs.word"):
        assert problem in result.stdout
    assert "0 of 2 good" in result.stdout


def test_a_model_that_fails_is_told_and_ends_with_1(run: Run) -> None:
    keys = {"ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}  # nobody listens there

    result = run("prompts", "test", "summarize_text", "--limit", "1", **keys)

    assert result.exit_code == 1
    assert "the model failed: 503: Service Unavailable (provider_unreachable: No connection to " in result.stdout


def test_a_prompt_without_a_data_set_asks_for_one(run: Run) -> None:
    result = run("prompts", "test", "team/say")

    assert (result.exit_code, "name a data set with --data FILE" in result.stderr) == (2, True)


def test_a_row_ends_at_a_line_feed_alone() -> None:
    texts = ["a\u2028b", "c\x85d", "e\u2029f"]  # JSON leaves them as they are, and Python breaks lines at them

    cases = read_cases("\r\n".join(f'{{"inputs": {{"content": "{text}"}}}}' for text in texts), "d")

    assert [case.inputs["content"] for case in cases] == texts
    assert [case.name for case in cases] == ["row 1", "row 2", "row 3"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "d:1: has no rows"),
        ("\n{", "d:2: is no JSON"),
        ("[" * 5_000, "d:1: is no JSON"),
        ("[]", "d:1: has no inputs"),
        ('{"inputs": []}', "d:1: has no inputs"),
        ('{"inputs": {}, "expect": 1}', "d:1: unknown member `expect`"),
        ('{"inputs": {}, "contains": "x"}', "d:1: `contains` is no list of texts"),
        ('{"inputs": {}, "max_chars": "9"}', "d:1: `max_chars` is no whole number"),
    ],
)
def test_a_faulty_row_is_named_by_its_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        read_cases(text, "d")


# torana models


def test_models_are_listed_with_what_aliases_resolve_to(run: Run) -> None:
    without = told(run("models", "list", "--json"))
    with_key = told(run("models", "list", "--json", ANTHROPIC_API_KEY="x"))

    assert without["aliases"]["chat_default"]["deployment"] == "demo/torana-demo"
    assert with_key["aliases"]["chat_default"]["deployment"] == "anthropic/claude-sonnet-4-6"
    state = {row["name"]: row["configured"] for row in with_key["models"]}
    assert (state["claude_opus_4_6"], state["gpt_5_2"]) == (True, False)
    assert "claude_opus_4_6" in run("models", "list").stdout


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("claude_haiku_4_5", ["models"]),
        ("chat_default", ["aliases", "models"]),
        ("duo_chat", ["feature_settings", "aliases", "models"]),
        ("fireworks_ai/codestral-2501", ["client_names", "aliases", "models"]),
    ],
)
def test_show_follows_a_name_to_its_model(run: Run, name: str, kinds: list[str]) -> None:
    found = told(run("models", "show", name, "--json", ANTHROPIC_API_KEY="x"))

    assert [step["kind"] for step in found["resolved"]] == kinds
    assert all(re.search(r"models\.yml:\d+$", step["place"]) for step in found["resolved"])
    assert found["deployments"][0]["configured"]
    assert run("models", "show", name).exit_code == 0


def test_an_unknown_model_gets_a_suggestion(run: Run) -> None:
    result = run("models", "show", "claude_hiku_4_5")

    assert (result.exit_code, result.stderr) == (
        1,
        "unknown model 'claude_hiku_4_5', did you mean 'claude_haiku_4_5'?\n",
    )


# torana explain request


def explain(run: Run, body: Any, *args: str, **env: str | None) -> tuple[int, Any]:
    result = run("explain", "request", "-f", "-", "--json", *args, typed=json.dumps(body), **env)
    return result.exit_code, told(result)


LOOKUPS = "- {name: lookups, limit: 5 requests per minute, match: {unit_primitives: [documentation_search]}}\n"
CURSOR = {"file_name": "a.py", "content_above_cursor": "def f(", "content_below_cursor": ""}
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
GENERATION = {"prompt_components": [{"type": "code_editor_generation", "payload": CURSOR}]}


@pytest.mark.parametrize(
    ("body", "path", "route", "rights", "prompt"),
    [
        (
            {"inputs": {"word": "x"}},
            "/v1/prompts/team/say",
            "/v1/prompts/{tail}",
            ["duo_chat", "ask_commit or ask_issue"],
            "team/say",
        ),
        (
            {"inputs": {"word": "x"}},
            "/gate/v1/prompts/team%2Fsay?x=y",
            "/v1/prompts/{tail}",
            ["duo_chat", "ask_commit or ask_issue"],
            "team/say",
        ),
        (CHAT, "/ai/v2/chat/agent", "/v2/chat/agent", ["duo_chat or duo_classic_chat"], "chat/react"),
        (CHAT, "", "/v2/chat/agent", ["duo_chat or duo_classic_chat"], "chat/react"),
        ({"current_file": CURSOR}, "", "/v2/code/completions", ["complete_code"], "code_suggestions/completions"),
        (GENERATION, "", "/v3/code/completions", ["generate_code"], "code_suggestions/generations"),
        (GENERATION, "/v4/code/suggestions", "/v4/code/suggestions", ["generate_code"], "code_suggestions/generations"),
        (
            {"prompt_components": [{"type": "new"}, {"type": "summarize_text", "payload": {"content": "x"}}]},
            "",
            "/v1/summarize_text",
            ["summarize_text"],
            "summarize_text",
        ),
    ],
)
def test_explain_tells_rights_prompt_and_model_without_calling_it(
    run: Run, body: Any, path: str, route: str, rights: list[str], prompt: str
) -> None:
    # A key, and an address where nobody listens: calling would fail.
    keys = {"ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "AIGW_ROOT_PATH": "gate"}

    code, found = explain(run, body, *(("--path", path) if path else ()), **keys)

    assert code == 0
    assert (found["route"], found["access"]["unit_primitives"]) == (route, rights)
    assert found["access"]["instance_token_only"] == (route[:3] in ("/v3", "/v4"))
    assert (found["prompt"]["id"], Path(found["prompt"]["file"]).is_file()) == (prompt, True)
    assert found["sent_to"].startswith("anthropic/claude-")
    first = found["model"]["candidates"][0]
    assert (first["deployment"], first["part"], first["configured"]) == (found["sent_to"], "first", True)
    assert found["cost"]["estimated_input_tokens"] > 0
    assert "estimated_input_tokens" not in found["sent"]  # two ways to count would tell two numbers
    assert "refused" not in found


@pytest.mark.parametrize(
    ("metadata", "why", "sent_to"),
    [
        (None, "default chat_default, the first configured of", "anthropic/claude-sonnet-4-6"),
        (
            {"provider": "gitlab", "identifier": "claude_opus_4_6"},
            "identifier claude_opus_4_6",
            "anthropic/claude-opus-4-6",
        ),
        (
            {"provider": "gitlab", "feature_setting": "code_completions"},
            "feature setting code_completions -> completions_default, the first configured of",
            "anthropic/claude-haiku-4-5-20251001",
        ),
        (
            {"provider": "openai", "name": "mistral", "endpoint": "http://127.0.0.1:9/v1", "identifier": "m"},
            "the client's own server, family mistral",
            "openai/m",
        ),
    ],
)
def test_explain_says_which_member_chose_the_model(run: Run, metadata: Any, why: str, sent_to: str) -> None:
    keys = {"ANTHROPIC_API_KEY": "x", "AIGW_CUSTOM_MODELS__ENABLED": "true"}
    body = {"inputs": {"word": "x"}, "model_metadata": metadata}

    code, found = explain(run, body, "--path", "/v1/prompts/team/say", **keys)

    assert (code, found["sent_to"]) == (0, sent_to)
    assert found["model"]["why"].startswith(why)
    if metadata and "endpoint" in metadata:
        assert (found["prompt"]["variant"], found["sent"]["roles"]) == ("mistral", ["user"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("claude_haiku_4_5", "model claude_haiku_4_5"),
        ("anthropic/claude-haiku-4-5-20251001", "model anthropic/claude-haiku-4-5-20251001"),
        ("completions_default", "model completions_default, the first configured of claude_haiku_4_5, "),
    ],
)
def test_explain_says_which_name_of_a_vendors_body_chose_the_model(run: Run, name: str, why: str) -> None:
    body = {"model": name, **CHAT}

    _, found = explain(run, body, "--path", "/openai/v1/chat/completions", ANTHROPIC_API_KEY="x")

    assert found["model"]["name"] == "claude_haiku_4_5"
    assert found["model"]["why"].startswith(why)


def test_explain_shows_a_families_folded_turns(run: Run) -> None:
    own = {"provider": "openai", "name": "codegemma", "endpoint": "http://127.0.0.1:9/v1", "identifier": "m"}

    _, found = explain(
        run,
        {"inputs": {"word": "x"}, "model_metadata": own},
        "--path",
        "/v1/prompts/team/say",
        AIGW_CUSTOM_MODELS__ENABLED="true",
    )

    assert (found["prompt"]["variant"], found["sent"]["roles"]) == ("base", ["user"])


@pytest.mark.parametrize(
    ("body", "path", "status", "code"),
    [
        ({"inputs": {}}, "/v1/prompts/team/say", 422, "request_invalid"),
        ({"inputs": {}}, "/v1/prompts/no/such", 404, "prompt_not_found"),
        ({"inputs": {}, "prompt_version": "^9"}, "/v1/prompts/team/say", 400, "prompt_version_unmatched"),
        ({}, "/v1/nowhere", 404, "not_found"),
        ([], "/v2/chat/agent", 422, "request_invalid"),
        (
            {"inputs": {}, "model_metadata": {"provider": "openai", "endpoint": "http://127.0.0.1:9"}},
            "/v1/prompts/team/say",
            400,
            "custom_models_disabled",
        ),
    ],
)
def test_explain_says_what_is_refused_and_ends_with_1(run: Run, body: Any, path: str, status: int, code: str) -> None:
    exit_code, found = explain(run, body, "--path", path)

    assert exit_code == 1
    assert (found["refused"]["status"], found["refused"]["code"]) == (status, code)
    assert not found["refused"]["text"].endswith(": ")


@pytest.mark.parametrize(
    ("path", "method", "body", "rights"),
    [
        ("/v1/code/user_access_token", "POST", {}, ["complete_code or ai_gateway_model_provider_proxy"]),
        (
            "/ai/v1/search/gitlab-docs",
            "POST",
            {"type": "search", "metadata": {"source": "x", "version": "18.6"}, "payload": {"query": "x"}},
            ["documentation_search"],
        ),
        ("/openai/v1/models", "GET", {}, ["ai_gateway_model_provider_proxy"]),
        ("/v1/models/definitions", "GET", {}, None),
        ("/monitoring/ready", "GET", {}, None),
    ],
)
def test_explain_tells_who_may_ask_an_endpoint_that_calls_no_model(
    run: Run, overlay: Path, path: str, method: str, body: Any, rights: Any
) -> None:
    (overlay / "limits.yml").write_text(LOOKUPS)

    exit_code, found = explain(run, body, "--path", path, "--method", method)

    assert (exit_code, found["route"]) == (0, path.removeprefix("/ai"))
    assert found["model"] == "this endpoint calls none"
    assert found["access"] == "open to everybody" if rights is None else found["access"]["unit_primitives"] == rights
    assert (found["limits"] == "none") is ("search" not in path)
    assert "sent_to" not in found


def test_explain_wants_a_body_where_one_is_sent(run: Run) -> None:
    listed = run("explain", "request", "--path", "/openai/v1/models", "--method", "get")
    sent = run("explain", "request", "--path", "/v2/chat/agent")

    assert (listed.exit_code, "route: /openai/v1/models\n" in listed.stdout) == (0, True)
    assert (sent.exit_code, "-f BODY.json" in sent.stderr) == (2, True)


def test_explain_refuses_another_method_as_the_server_does(run: Run) -> None:
    exit_code, found = explain(run, {}, "--path", "/v1/models/definitions")

    assert (exit_code, found["refused"]["code"]) == (1, "method_not_allowed")


def test_explain_decides_about_a_token(run: Run) -> None:
    def token(*names: str) -> str:
        return run("token", *(part for name in names for part in ("--unit-primitive", name))).stdout.strip()

    args = ("--path", "/v1/prompts/team/say", "--offline", "--token")
    body = {"inputs": {"word": "x"}}

    good, allowed = explain(run, body, *args, token("duo_chat", "ask_issue"))
    poor, missing = explain(run, body, *args, token("duo_chat"))
    bad, invalid = explain(run, body, *args, "rubbish")

    assert (good, allowed["token"]) == (0, {"allowed": True})
    assert (poor, missing["token"]["code"], missing["token"]["missing"]) == (
        1,
        "unit_primitive_missing",
        "ask_commit or ask_issue",
    )
    assert (bad, invalid["token"]["allowed"], invalid["token"]["status"]) == (1, False, 401)


FLEET = """\
models:
- name: fleet
  title: Fleet
  deployments:
  - {provider: anthropic, model: near, region: eu-west-1}
  - {provider: anthropic, model: spare, region: eu-west-1, order: 1}
  - {provider: anthropic, model: far, region: us-east-1}
  - {provider: anthropic, model: unpaid, key_env: NOBODYS_API_KEY}
residency:
- {name: europeans, instance: torana-dev, regions: [eu-*]}
aliases:
- {name: chat_default, models: [fleet]}
"""


def test_explain_lists_the_candidates_and_why(run: Run, overlay: Path) -> None:
    (overlay / "models.yml").write_text(FLEET)
    keys = {"ANTHROPIC_API_KEY": "x", "AIGW_SELF_SIGNED_JWT__SIGNING_KEY": pem(rsa_key(LOCAL_KEY))}
    token = run("token", "--unit-primitive", "duo_chat", "--unit-primitive", "ask_issue", **keys).stdout.strip()
    body, path = {"inputs": {"word": "x"}}, ("--path", "/v1/prompts/team/say")

    _, anyone = explain(run, body, *path, **keys)
    _, european = explain(run, body, *path, "--offline", "--token", token, **keys)

    parts = {each["deployment"]: each["part"] for each in european["model"]["candidates"]}
    whys = {each["deployment"]: each["why"] for each in european["model"]["candidates"]}
    assert european["token"] == {"allowed": True}
    assert parts == {
        "anthropic/near/eu-west-1": "first",
        "anthropic/spare/eu-west-1": "fallback",
        "anthropic/far/us-east-1": "left out",
        "anthropic/unpaid": "left out",
    }
    assert whys["anthropic/far/us-east-1"] == "is in us-east-1, the caller stays in eu-*"
    assert whys["anthropic/unpaid"] == "no credentials"
    assert {each["deployment"]: each["part"] for each in anyone["model"]["candidates"]}["anthropic/far/us-east-1"] in (
        "first",
        "fallback",
    )


def test_explain_takes_headers_into_account(run: Run) -> None:
    body = {"model": "claude-sonnet-4-6", "max_tokens": 9, **CHAT}
    path = ("--path", "/v1/proxy/anthropic/v1/messages")
    keys = {"ANTHROPIC_API_KEY": "x"}

    _, without = explain(run, body, *path, **keys)
    _, found = explain(run, body, *path, "--header", "X-Gitlab-Unit-Primitive: duo_chat", **keys)

    assert without["refused"]["code"] == "unit_primitive_header_missing"
    assert found["access"]["unit_primitives"] == ["duo_chat"]
    assert found["sent_to"] == "anthropic/claude-sonnet-4-6 /v1/messages"


def test_explain_takes_headers_in_any_letters(run: Run) -> None:
    body = {"model": "claude-sonnet-4-6", "max_tokens": 9, **CHAT}
    named = ("--header", "X-Gitlab-Unit-Primitive: duo_chät 東京")

    _, found = explain(run, body, "--path", "/v1/proxy/anthropic/v1/messages", *named, ANTHROPIC_API_KEY="x")

    assert found["refused"]["code"] == "unit_primitive_unknown"


def test_explain_names_a_features_limit(run: Run, overlay: Path) -> None:
    add_feature(overlay)
    body = {"prompt_components": [{"type": "say", "payload": {"word": "x"}}]}

    _, found = explain(run, body, ANTHROPIC_API_KEY="x")
    text = run("explain", "request", "-f", "-", typed=json.dumps(body), ANTHROPIC_API_KEY="x").stdout

    assert (found["route"], found["prompt"]["id"]) == ("/v1/say", "team/say")
    assert found["limits"] == ["feature/say: 5 per minute per user"]
    assert "limits: feature/say: 5 per minute per user\n" in text


def test_a_body_that_does_not_tell_where_it_belongs_needs_a_path(run: Run) -> None:
    for typed, said in (
        ('{"inputs": {}}', "does not tell"),
        ("[]", "does not tell"),
        ("{", "no JSON"),
        ("[" * 5_000, "no JSON"),
        ("", "no JSON"),
    ):
        result = run("explain", "request", "-f", "-", typed=typed)

        assert (result.exit_code, said in result.stderr, "--path" in result.stderr) == (2, True, True)
    assert run("explain", "request", "-f", "gone.json").exit_code == 2
    assert run("explain", "request", "-f", "-", "--header", "x", typed="{}").exit_code == 2


def test_a_body_is_asked_for_only_where_a_request_has_one(run: Run) -> None:
    minting = run("explain", "request", "--path", "/v1/code/user_access_token")
    prompt = run("explain", "request", "--path", "/v1/prompts/chat/explain_code")

    assert (minting.exit_code, "unit_primitives: complete_code or" in minting.stdout) == (0, True)
    assert (prompt.exit_code, prompt.stdout, "-f BODY.json" in prompt.stderr) == (2, "", True)


def test_a_path_is_taken_out_of_an_address_and_else_begins_with_a_slash(run: Run) -> None:
    args = ("explain", "request", "-f", "-", "--path")

    address = run(*args, "https://gateway.example.com:5052/v1/prompts/team/say", typed='{"inputs": {"word": "x"}}')
    bare = run(*args, "v1/prompts/team/say", typed="{}")

    assert (address.exit_code, "request: POST /v1/prompts/team/say\n" in address.stdout) == (0, True)
    assert (bare.exit_code, "expected it to begin with /" in bare.stderr) == (2, True)


def test_explain_reads_well_as_text(run: Run) -> None:
    result = run("explain", "request", "-f", "-", typed=json.dumps(CHAT))

    assert result.exit_code == 0
    assert "request: POST /v2/chat/agent\n" in result.stdout
    assert "  unit_primitives: duo_chat or duo_classic_chat\n" in result.stdout
    assert "  - deployment demo/torana-demo, part first, why " in result.stdout


# The how-to


HOW_TO = Path(__file__).parents[2] / "docs/how-to/add-a-feature.md"


def test_the_feature_of_the_how_to_is_served_as_it_says(run: Run, tmp_path: Path) -> None:
    page = HOW_TO.read_text()
    files = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    # JSON has no comments: the sentence before the block names its file.
    files += re.findall(r"`(\S+\.jsonl)`[^`]*(?:`\w+`[^`]*)*^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(files) == 4
    for name, text in files:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    mine = ("--catalog", "mine")

    checked = run("check", *mine)
    rendered = run("prompts", "render", "name_branch", *mine, "--input", "issue=Add dark mode")
    tested = run("prompts", "test", "name_branch", *mine)
    body = {"prompt_components": [{"type": "name_branch", "payload": {"issue": "Add dark mode"}}]}
    _, explained = explain(run, body, *mine)

    assert (checked.exit_code, tested.exit_code) == (0, 0)
    assert rendered.stdout in HOW_TO.read_text()
    # The counts grow with what is shipped; the words are what the page promises.
    assert re.sub(r"[0-9]+", "N", checked.stdout.splitlines()[0]) in re.sub(r"[0-9]+", "N", HOW_TO.read_text())
    assert explained["access"]["unit_primitives"] == ["name_branch"]


def test_the_reference_lists_the_shipped_features() -> None:
    text = (HOW_TO.parents[1] / "reference/features.md").read_text()

    for feature in load_catalogue().features.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{feature.name}` "))
        assert f"`{feature.path}`" in row
        assert all(f"`{name}`" in row for name in feature.inputs)
        assert row.endswith(f"| `{feature.unit_primitive}` |")
