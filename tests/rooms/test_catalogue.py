"""The catalogue: what is merged, what is refused, and where it says the fault lies."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from torana.catalog.document import Document
from torana.catalog.load import load_catalogue, overlay_paths
from torana.catalog.model_records import ModelsFile
from torana.catalog.records import UnitPrimitive
from torana.cli import main
from torana.cli.check import check
from torana.errors import BadCatalogue

MODEL = "models:\n- name: {name}\n  title: T\n  deployments: [{{provider: demo, model: m}}]\n"


def write(root: Path, **files: str) -> Path:
    """Files by stem; `__` stands for a folder."""
    for stem, text in files.items():
        path = root / (stem.replace("__", "/") + ".yml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def problems_of(*overlays: Path) -> list[str]:
    with pytest.raises(BadCatalogue) as refused:
        load_catalogue(overlays)
    return [problem.removeprefix(f"{overlays[-1]}/") for problem in refused.value.problems]


def test_the_shipped_catalogue_is_sound() -> None:
    catalogue = load_catalogue()

    assert catalogue.overrides == ()
    assert catalogue.models["demo"].deployments[0].provider == "demo"
    assert "code_suggestions/generations" in catalogue.prompts


def test_the_shipped_unit_primitives_are_those_of_the_contract() -> None:
    primitives = load_catalogue().unit_primitives

    assert {name for name, each in primitives.items() if "code_suggestions" in each.aliases} == {
        "complete_code",
        "generate_code",
    }
    not_on_proxies = {name for name, each in primitives.items() if not each.proxy_allowed}
    contexts = {name for name in primitives if name.startswith("include_")}
    assert len(contexts) == 12  # those of the contract, and the rules of a user, which editors of 18 add
    assert not_on_proxies == contexts | {
        "complete_code",
        "generate_code",
        "generate_embeddings_codebase",
        "amazon_q_integration",
        "summarize_text",
        "generate_release_notes",
    }


def test_a_record_replaces_the_earlier_one_of_its_name_whole(tmp_path: Path) -> None:
    first = write(tmp_path / "1", models=MODEL.format(name="demo"))
    second = write(
        tmp_path / "2",
        models=MODEL.format(name="demo").replace("T", "U")
        + "- name: own\n  title: O\n  deployments: [{provider: demo, model: m}]\n",
    )

    catalogue = load_catalogue([first, second])

    assert (catalogue.models["demo"].title, catalogue.models["demo"].is_listed) == ("U", True)
    assert catalogue.models["own"].title == "O"
    assert "claude_haiku_4_5" in catalogue.models
    assert catalogue.places["models own"] == f"{second}/models.yml:5"
    assert catalogue.overrides[-1] == f"models demo: {second}/models.yml:2 replaces {first}/models.yml:2"


def test_prompts_and_templates_merge_by_path(tmp_path: Path) -> None:
    prompt = "name: Mine\nunit_primitives: [explain_code]\nprompt_template: {user: hello}\n"
    write(tmp_path, **{"prompts__chat__explain_code__base__1.0.0": prompt, "prompts__own__claude__2.0.0-rc.1": prompt})
    (tmp_path / "prompts/own/part.jinja").write_text("part")

    catalogue = load_catalogue([tmp_path])

    assert catalogue.prompts["chat/explain_code"]["base"]["1.0.0"].read().name == "Mine"
    assert list(catalogue.prompts["own"]["claude"]) == ["2.0.0-rc.1"]
    assert catalogue.templates["own/part.jinja"] == "part"
    assert [line.partition(":")[0] for line in catalogue.overrides] == ["prompt chat/explain_code/base/1.0.0.yml"]


def test_a_template_that_no_include_would_find_is_told_its_place(tmp_path: Path) -> None:
    (tmp_path / "part.jinja").write_text("part")

    assert problems_of(tmp_path) == [
        "part.jinja:1: unknown name, expected prompts/part.jinja, the root of all includes"
    ]


def test_an_overlays_prompt_is_kept_as_it_was_when_loaded(tmp_path: Path) -> None:
    prompt = "name: Before\nunit_primitives: [explain_code]\nprompt_template: {user: hello}\n"
    write(tmp_path, **{"prompts__own__base__1.0.0": prompt})
    catalogue = load_catalogue([tmp_path])

    write(tmp_path, **{"prompts__own__base__1.0.0": prompt.replace("Before", "After")})

    assert catalogue.prompts["own"]["base"]["1.0.0"].read().name == "Before"


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        (
            "models",
            "models: [\n",
            "models.yml:1: did not find expected node content, expected a value, or the closing bracket | models: [",
        ),
        ("models", "", "models.yml:1: the file is empty, expected members: models, aliases, client_names, "),
        ("limits", "# none\n", "limits.yml:1: the file is empty, expected a list, `[]` where there"),
        ("models", "# é\nmodels:\n- name: \0x\n", "models.yml:3: control characters are not allowed, expected text"),
        ("models", "modles: []", "models.yml:1: unknown member `modles`, did you mean `models`? | modles: []"),
        ("models", "models: x", "models.yml:1: `models` is a text, expected a list"),
        (
            "models",
            "aliases:\n- name: a\n  models: [x, 7]",
            "models.yml:3: `aliases[0].models[1]` is a whole number, expected a text (wri",
        ),
        ("models", "aliases:\n- models: [x]", "models.yml:2: `aliases[0]` has no `name`, expected"),
        (
            "models",
            MODEL.format(name="m").replace("model:", "modle:"),
            "models.yml:4: unknown member `modle`, did you mean `m",
        ),
        (
            "models",
            "models:\n\t- name: m",
            "models.yml:2: found character that cannot start any token, expected spaces",
        ),
        ("models", "models:\n- name: m\n\ttitle: T", "models.yml:3: found a tab character"),
        (
            "models",
            "models:\n- name: a: b",
            "models.yml:2: mapping values are not allowed in this context, expected one `",
        ),
        ("models", "models:\n- title: {{ x }}", "models.yml:2: found unhashable key, expected the text in quotes"),
        (
            "models",
            "models:\n- title: @x",
            "models.yml:2: found character that cannot start any token, expected the text",
        ),
        ("models", "models:\n- name: m\n  title: T\n   stage: x", "models.yml:4: "),
        (
            "models",
            "families:\n- {name: own, fill_in: qwen2}",
            "models.yml:2: `families[0].fill_in` is 'qwen2', expected one of codegemma, codellama, codestral, deep",
        ),
        (
            "models",
            "families:\n- {name: own, input_limit: -1}",
            "models.yml:2: `families[0].input_limit` is -1, expected a",
        ),
        ("models", MODEL.format(name='""'), "models.yml:2: `name` is empty, expected a name"),
        (
            "unit_primitives",
            "- {name: ' ', description: d, feature_category: c}",
            "unit_primitives.yml:1: `name` is empty",
        ),
        ("models", "models: []\nmodels: []", "models.yml:2: `models` stands twice, expected each member once"),
        ("models", "models: &a []\naliases: *a", "models.yml:1: used again by an alias"),
        ("models", "models: &a [*a]", "models.yml:1: used again by an alias"),
        ("models", "residency:\n- {name: a, regions: []}", "models.yml:2: a: allows no region"),
        (
            "models",
            "residency:\n- {name: a, instance: i, realm: saas, regions: [eu-*]}",
            "models.yml:2: a: names an instance and a realm",
        ),
        (
            "models",
            "models:\n- {name: m, title: T, deployments: [{provider: openai, model: m, canary_percent: 5}]}",
            "models.yml:2: m: has canaries and shadows only",
        ),
        (
            "models",
            "models:\n- name: m\n  title: T\n  deployments:\n  - {provider: openai, model: m}\n"
            "  - {provider: openai, model: n, canary_percent: 5, shadow_percent: 5}",
            "models.yml:2: m: deployment `openai/n` is a canary and a shadow",
        ),
        ("models", "models: !!python/name:os.system x", "models.yml:1: could not determine a constructor"),
        ("models", "models: !!timestamp soon", "models.yml:1: could not determine a constructor"),
        ("models", "models:\n- name: !!int nine", "models.yml:2: `nine` is not what its tag says"),
        ("models", "models:\n- name: !!bool maybe", "models.yml:2: `maybe` is not what its tag says"),
        ("models", "models:\n- {!!float much: 1}", "models.yml:2: `much` is not what its tag says"),
        ("models", "models: []\n---\nmodels: []", "models.yml:2: but found another document"),
        ("models", "[" * 5000, "models.yml:"),
        (
            "models",
            "aliases:\n- {name: a, models: [demo]}\n- {name: a, models: [demo]}",
            "models.yml:3: `a` stands twice",
        ),
        (
            "providers",
            "- name: p\n  dialect: mesages",
            "providers.yml:2: `[0].dialect` is 'mesages', expected one of m",
        ),
        ("providers", "name: p", "providers.yml:1: the file is a mapping, expected a list"),
        (
            "unit_primitives",
            "- 7",
            "unit_primitives.yml:1: `[0]` is a whole number, expected members: name, description",
        ),
        (
            "deny",
            "- {name: on, user: yes, instance: 1}",
            "deny.yml:1: `[0].instance` is a whole number, expected a text",
        ),
        ("deny", "- name: d", "deny.yml:1: d: denies nobody, expected `instance`, `user` or `token_id`"),
        ("model", "", "model.yml:1: unknown name, did you mean `models.yml`?"),
        ("prompts__a__1.0.0", "", "prompts/a/1.0.0.yml:1: unknown name, expected prompts/<id>/<va"),
        (
            "prompts__a__base__1.0",
            "",
            "prompts/a/base/1.0.yml:1: unknown name, expected prompts/<id>/<variant>/<version>.yml, with a version",
        ),
        ("prompts__a__base__1.0.0-x", "", "prompts/a/base/1.0.0-x.yml:1: unknown name"),
        ("prompts__a__base__1.0.0", "nam: x", "prompts/a/base/1.0.0.yml:1: unknown member `nam`, did you mean `name`?"),
        (
            "prompts__a__base__1.0.0",
            "name: x\nprompt_template: {user: hi}\nparams: {timeout: -1}",
            "prompts/a/base/1.0.0.yml:3: `params.timeout` is -1, expected seconds from 0 on",
        ),
        (
            "prompts__a__base__1.0.0",
            "name: x\nprompt_template: {user: hi}\nparams: {timeout: 30s}",
            "prompts/a/base/1.0.0.yml:3: `params.timeout` is '30s', expected seconds from 0 on",
        ),
        (
            "prompts__a__base__1.0.0",
            "name: ''\nprompt_template: {user: hi}",
            "prompts/a/base/1.0.0.yml:1: `name` is '', expected a text that is not empty",
        ),
        (
            "prompts__a__base__1.0.0",
            "name: x\nprompt_template: {user: [1]}",
            "prompts/a/base/1.0.0.yml:2: `prompt_template",
        ),
        *[
            (
                "models",
                MODEL.format(name="m").replace("title: T", f"title: T\n  {line}"),
                f"models.yml:4: `models[0].{told}",
            )
            for line, told in [
                ("capabilities: [chat, fly]", "capabilities[1]` is 'fly', expected one of chat, stream, tools, "),
                ("stage: retired", "stage` is 'retired', expected one of registered, staging, production, deprecated"),
                ("prices: {input: '3'}", "prices` has no `as_of`, expected members: as_of, input, output, "),
                (
                    "prices: {as_of: 2026-11-01, input: 3.5}",
                    'prices.input` is 3.5, expected US dollars as text, such as "3.75" (write it in quotes)',
                ),
                ("prices: {as_of: 2026-11-01, input: '$3'}", "prices.input` is '$3', expected US dollars as text"),
                ('prices: {as_of: 2026-11-01, input: "3\\n"}', "prices.input` is '3\\n', expected US dollars as text"),
                ("prices: {as_of: November}", "prices.as_of` is 'November', expected a day as YYYY-MM-DD"),
                ("output_limit: -1", "output_limit` is -1, expected a whole number from 0 on"),
            ]
        ],
        (
            "models",
            MODEL.format(name="m").replace("model: m", "model: m, canary_percent: 101"),
            "models.yml:4: `models[0].deployments[0].canary_percent` is 101, expected a number from 0 to 100",
        ),
        (
            "models",
            MODEL.format(name="m").replace("model: m", "model: m, prices: {as_of: 2026-11-01, inptu: '3'}"),
            "models.yml:4: unknown member `inptu`, did you mean `input`?",
        ),
        (
            "providers",
            "- {name: p, dialect: messages, base_url: 'http://['}",
            "providers.yml:1: p: base_url 'http://[' is no URL, expected http://… or https://…",
        ),
        (
            "providers",
            "- {name: p, dialect: messages, base_url: vllm}",
            "providers.yml:1: p: base_url 'vllm' is no URL",
        ),
        (
            "providers",
            "- {name: p, dialect: messages, headers: {x y: z}}",
            "providers.yml:1: p: header `x y` cannot be sent",
        ),
        (
            "providers",
            "- {name: p, dialect: messages, paths: {chta: /x}}",
            "providers.yml:1: p: unknown member `chta` of `paths`, did you mean `chat`?",
        ),
        (
            "providers",
            "- {name: p, dialect: messages, paths: {chat: v1/chat}}",
            "providers.yml:1: p: path `v1/chat` of `chat`, expected one that begins with /",
        ),
        (
            "models",
            MODEL.format(name="m").replace("model: m", "model: m, base_url: 'http://x:y'"),
            "models.yml:4: m: base_url 'http://x:y' is no URL",
        ),
        (
            "providers",
            "- {name: p, dialect: generate_content, paths: {chat: /v1/chat}}",
            "providers.yml:1: p: `paths` does not go with `dialect: generate_content`, expected none: its paths hold",
        ),
        (
            "providers",
            "- {name: p, dialect: messages, auth: aws}",
            "providers.yml:1: p: `auth: aws` does not go with `dialect: messages`, expected `dialect: converse`",
        ),
        ("providers", "- {name: p, dialect: messages, auth: basic}", "providers.yml:1: `[0].auth`"),
        ("providers", "- {name: p, dialect: messages, key_env: P_SECRET}", "providers.yml:1: p: key_env `P_SECRET` is"),
        (
            "providers",
            "- {name: p, dialect: chat_completions, quirks: {call_id_chars: -1}}",
            "providers.yml:1: `[0].quirks.call_id_chars` is -1, expected a whole number from 0 to 64",
        ),
        (
            "providers",
            "- {name: p, dialect: messages, quirks: {call_id_chars: 65}}",
            "providers.yml:1: `[0].quirks.call",
        ),
        (
            "providers",
            "- {name: p, dialect: messages, quirks: {affinity_header: x y}}",
            "providers.yml:1: p: affinity_header `x y` cannot be sent",
        ),
        (
            "models",
            MODEL.format(name="m") + "  input_limit: 0",
            "models.yml:5: `models[0].input_limit` is 0, expected a",
        ),
        ("promts__a", "", "promts:1: unknown name, did you mean `prompts`?"),
        (
            "models",
            "models:\n- title: [x] y",
            "models.yml:2: did not find expected key, expected the text in quotes as",
        ),
        (
            "models",
            'models:\n- title: "x" y',
            "models.yml:2: did not find expected key, expected the text in quotes as",
        ),
        ("models", "models:\n- title: x\n a: y", "models.yml:3: did not find expected key, expected the line to begin"),
        (
            "models",
            "models:\n- title: **x**",
            "models.yml:2: did not find expected alphabetic or numeric character, expected the text in quotes",
        ),
        (
            "models",
            "models: - x",
            "models.yml:1: block sequence entries are not allowed in this context, expected the l",
        ),
        (
            "models",
            "models:\n- title: | x",
            "models.yml:2: did not find expected comment or line break, expected the te",
        ),
        (
            "models",
            "models:\n- title: |\n  x\n x",
            "models.yml:3: could not find expected ':', expected `name: value`, or further indentation",
        ),
        (
            "models",
            "models: []\naliases\nx: []",
            "models.yml:2: could not find expected ':', expected `name: value`, o",
        ),
        (
            "models",
            MODEL.format(name="m") + "  hedge_after_s: 1e400",
            "models.yml:5: `1e400` is larger than any number",
        ),
        (
            "providers",
            "- {name: p, dialect: messages, key_env: [A_API_KEY, 1]}",
            "providers.yml:1: `[0].key_env[1]` is a whole number, expected a text (write it in quotes)",
        ),
        (
            "providers",
            "- {name: p, dialect: messages, base_url: 'http://p', paths: {chat: /a b}}",
            "providers.yml:1: p: path `/a b` of `chat`, expected one that begins with /, as requests spell it",
        ),
        (
            "models",
            "proxy_models:\n- {name: vertex_ai}",
            "models.yml:2: `proxy_models[0].name` is 'vertex_ai', expected",
        ),
    ],
)
def test_a_faulty_file_is_refused_with_file_line_and_expectation(
    tmp_path: Path, file: str, text: str, problem: str
) -> None:
    assert problems_of(write(tmp_path, **{file: text}))[0].startswith(problem)


def test_a_name_that_leads_nowhere_is_told_with_the_line_where_it_stands(tmp_path: Path) -> None:
    text = """\
models:
- name: m
  title: gone
  deployments:
  - {provider: demo, model: m}
  - provider: gone
    model: other
aliases:
- name: chat_default
  models: [demo,
    missing]
"""

    problems = problems_of(write(tmp_path, models=text))

    assert [problem.partition(", ")[0] for problem in problems] == [
        "models.yml:6: m: unknown provider `gone`",
        "models.yml:11: chat_default: unknown model `missing`",
    ]


def test_a_value_that_can_never_work_is_told_with_the_line_where_it_stands(tmp_path: Path) -> None:
    providers = """\
- name: p
  dialect: messages
  base_url: p.example.com
  base_url_env: [P_URL]
  key_env: [P_API_KEY,
    P_SECRET]
"""
    models = MODEL.format(name="m") + "  prices:\n    input: '1'\n    as_of: 2026-13-29\n"

    problems = problems_of(write(tmp_path, providers=providers, models=models))

    assert [problem.partition(": ")[0] for problem in sorted(problems)] == [
        "models.yml:7",
        "providers.yml:3",
        "providers.yml:4",
        "providers.yml:6",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "models:\n- {name: m, title: T, deployments: [{provider: gone, model: m}]}",
            "models.yml:2: m: unknown provider `gone`",
        ),
        ("models:\n- {name: m, title: T, deployments: []}", "models.yml:2: m: has no deployments"),
        ("aliases:\n- {name: a, models: [gone]}", "models.yml:2: a: unknown model `gone`"),
        ("aliases:\n- {name: a, models: []}", "models.yml:2: a: has no models"),
        ("client_names:\n- {name: x/y, model: gone}", "models.yml:2: x/y: unknown alias or model `gone`"),
        ("feature_settings:\n- {name: f, default: gone}", "models.yml:2: f: unknown alias or model `gone`"),
        ("feature_settings:\n- {name: f, default: demo, selectable: [gone]}", "models.yml:2: f: unknown model `gone`"),
        ("feature_settings:\n- {name: f, default: demo, dev: [gone]}", "models.yml:2: f: unknown model `gone`"),
        ("feature_settings:\n- {name: f, default: demo, tags: {a: gone}}", "models.yml:2: f: unknown model `gone`"),
        (
            "feature_settings:\n- {name: f, default: demo, tags: {a: [demo, gone]}}",
            "models.yml:2: f: unknown model `gone`",
        ),
        (
            "feature_settings:\n- {name: f, default: demo, size_preference: {small: gone}}",
            "models.yml:2: f: unknown model `gone`",
        ),
        (
            "feature_settings:\n- {name: f, default: demo, unit_primitives: [gone]}",
            "models.yml:2: f: unknown unit primitive `gone`",
        ),
        (
            "models:\n- {name: m, title: T, deployments: [{provider: groq, model: ''}]}",
            "models.yml:2: m: deployment at `groq` has no `model`, expected its name there",
        ),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    problems = problems_of(write(tmp_path, models=text))

    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ("stage: deprecated, successor: demo", "is deprecated without a date"),
        ("stage: deprecated, deprecation: {deprecation_date: 2026-11-01}", "is deprecated without a successor"),
        (
            "stage: deprecated, successor: gone, deprecation: {deprecation_date: 2026-11-01}",
            "unknown model `gone`, expected the name of a known model",
        ),
        ("stage: deprecated, successor: m, deprecation: {deprecation_date: 2026-11-01}", "is its own successor"),
        (
            "stage: deprecated, successor: demo, deprecation: {deprecation_date: 2026-02-30}",
            "there is no day 2026-02-30",
        ),
        ("deprecation: {deprecation_date: 2026-11-01}", "has a `deprecation` in stage production"),
        ("stage: staging, successor: demo", "has a `successor` in stage staging"),
        ("prices: {as_of: 2026-02-30}", "there is no day 2026-02-30"),
        ("prices: {as_of: 2026-02-20, later: [{since: 2026-02-30}]}", "there is no day 2026-02-30"),
        (
            "prices: {as_of: 2026-02-20, later: [{since: 2027-02-01}, {since: 2027-01-01}]}",
            "`later` prices are in no order, expected each `since` after the last",
        ),
        ("capabilities: [embeddings]", "`embeddings` and `dimensions` contradict each other"),
        ("capabilities: [chat], dimensions: 8", "`embeddings` and `dimensions` contradict each other"),
    ],
)
def test_a_model_says_how_it_ends_and_what_it_is_without_contradicting_itself(
    tmp_path: Path, members: str, problem: str
) -> None:
    text = "models:\n- {name: m, title: T, deployments: [{provider: demo, model: m}], " + members + "}"

    problems = problems_of(write(tmp_path, models=text))

    assert len(problems) == 1
    assert problems[0].startswith(f"models.yml:2: m: {problem}")


@pytest.mark.parametrize(
    ("deployments", "problem"),
    [
        ("{provider: demo, model: m}, {provider: demo, model: m}", "m: deployment `demo/m` stands twice"),
        (
            "{provider: demo, model: m, region: eu}, {provider: demo, model: m, region: eu, account: b}",
            "m: deployment `demo/m/eu` stands twice",
        ),
        ("{provider: demo, model: m, name: x}, {provider: demo, model: n, name: x}", "m: deployment `x` stands twice"),
        ("{provider: demo, model: n, name: demo/torana-demo}", "m: deployment `demo/torana-demo` is another one else"),
        ("{provider: demo, model: m, key_env: MY_SECRET}", "m: key_env `MY_SECRET` is not read from the environment"),
    ],
)
def test_a_deployments_name_means_one_deployment(tmp_path: Path, deployments: str, problem: str) -> None:
    text = "models:\n- {name: m, title: T, deployments: [" + deployments + "]}"

    problems = problems_of(write(tmp_path, models=text))

    assert len(problems) == 1
    assert problems[0].startswith(f"models.yml:2: {problem}")


FEATURE = """\
unit_primitive: summarize_text
inputs: {content: {type: string}}
prompt: summarize_text@^1.0.0
"""
ABLE = "{name: able, title: T, capabilities: [chat, stream, tools, json], deployments: [{provider: demo, model: a}]}"
CHATTY = "{name: chatty, title: T, deployments: [{provider: gone, model: c}]}".replace("gone", "anthropic")


@pytest.mark.parametrize(
    ("more", "models", "problem"),
    [
        ("requires: [tools, images]\nmodel: able", "", "4: own: model `able` lacks images, expected it among its `ca"),
        ("requires: [tools]\nmodel: both", "", "4: own: model `chatty`, through alias `both`, lacks tools"),
        ("model: chatty\nanswer: json", "", "1: own: model `chatty` lacks json"),
        (
            "model: able\nfeature_setting: choice\nrequires: [tools]",
            "feature_settings:\n- {name: choice, default: able, selectable: [chatty]}",
            "6: own: model `chatty` offered by feature setting `choice` lacks tools",
        ),
        (
            "model: able\nfeature_setting: choice\nrequires: [tools]",
            "feature_settings:\n- {name: choice, default: both}",
            "6: own: model `chatty` of feature setting `choice`, through alias `both`, lacks tools",
        ),
        (
            "model: ending\nrequires: [tools]",
            "",
            "5: own: model `chatty`, the successor of `ending`, lacks tools",
        ),
        (
            "model: embeddings_default",
            "",
            "1: own: model `demo_embeddings`, through alias `embeddings_default`, lacks chat",
        ),
        ("model: waiting", "", "4: own: model `waiting` is in stage staging, expected one in stage production or de"),
        ("requires: [flying]", "", "4: `requires[0]` is 'flying', expected one of chat, stream, tools"),
    ],
)
def test_a_feature_is_refused_where_a_model_that_may_answer_it_lacks_an_ability(
    tmp_path: Path, more: str, models: str, problem: str
) -> None:
    ending = ABLE.replace("able", "ending").replace(
        "title", "stage: deprecated, successor: chatty, deprecation: {deprecation_date: 2099-01-01}, title"
    )
    waiting = ABLE.replace("able", "waiting").replace("title", "stage: staging, title")
    lines = "".join(f"- {each}\n" for each in (ABLE, CHATTY, ending.replace("model: a", "model: e"), waiting))
    text = f"models:\n{lines}aliases:\n- {{name: both, models: [able, chatty, waiting]}}\n{models}"
    write(tmp_path, models=text, features__own=FEATURE + more)

    problems = problems_of(tmp_path)

    assert any(each.startswith(f"features/own.yml:{problem}") for each in problems), problems
    assert not any("summarize_text.yml" in each for each in problems)


def test_a_feature_whose_models_can_do_what_it_asks_for_is_loaded(tmp_path: Path) -> None:
    text = f"models:\n- {ABLE}\n- {CHATTY}\naliases:\n- {{name: both, models: [able, chatty]}}\n"
    write(
        tmp_path,
        models=text,
        features__own=FEATURE + "model: both",
        features__json=FEATURE + "model: able\nrequires: [tools]",
    )

    assert load_catalogue([tmp_path]).features["json"].needs == {"chat", "tools"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("aliases:\n- {name: chat_default, models: [new]}", "chat_default: none of its models is in use, expected one"),
        ("feature_settings:\n- {name: f, default: new}", "f: model `new` is in stage staging"),
        ("feature_settings:\n- {name: f, default: demo, dev: [known]}", "f: model `known` is in stage registered"),
    ],
)
def test_defaults_lead_to_models_in_use(tmp_path: Path, text: str, problem: str) -> None:
    models = MODEL.format(name="new").replace("title: T", "title: T\n  stage: staging")
    known = MODEL.format(name="known").replace("title: T", "title: T\n  stage: registered").removeprefix("models:\n")

    problems = problems_of(write(tmp_path, models=models + known + text))

    assert problems[0].startswith(f"models.yml:{(models + known).count(chr(10)) + 2}: {problem}")


@pytest.mark.parametrize("successor", ["b", "c"])
def test_successors_lead_on_and_not_in_a_circle(tmp_path: Path, successor: str) -> None:
    one = MODEL.format(name="a").replace(
        "title: T", "title: T\n  stage: deprecated\n  successor: %s\n  deprecation: {deprecation_date: 2026-01-01}"
    )
    text = (one % "b") + (one.replace("name: a", "name: b") % "a").removeprefix("models:\n")
    if successor == "c":
        text = (one % "c") + MODEL.format(name="c").replace("title: T", "title: T\n  stage: staging").removeprefix(
            "models:\n"
        )

    problems = problems_of(write(tmp_path, models=text))

    expected = {"b": "a: is its own successor", "c": "a: successor `c` is in stage staging"}[successor]
    assert problems[0].startswith(f"models.yml:2: {expected}")


def test_all_problems_of_all_files_are_told(tmp_path: Path) -> None:
    write(tmp_path, models="models:\n- {name: 1, titel: T}\nfoo: 1", providers="- 7")

    told = [problem.partition(",")[0] for problem in problems_of(tmp_path)]

    assert told == [
        "providers.yml:1: `[0]` is a whole number",
        "models.yml:2: `models[0].name` is a whole number",
        "models.yml:2: unknown member `titel`",
        "models.yml:2: `models[0]` has no `title`",
        "models.yml:2: `models[0]` has no `deployments`",
        "models.yml:3: unknown member `foo`",
    ]


def test_an_unreadable_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "models.yml").write_bytes("# für\nmodels:\r\n- name: ".encode() + b"\xc3\n")
    os.mkfifo(tmp_path / "limits.yml")
    (tmp_path / "providers.yml").symlink_to(tmp_path / "providers.yml.d")
    (tmp_path / "features").write_text("")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/loop.jinja").symlink_to(tmp_path / "gone")

    problems = problems_of(tmp_path / "none", tmp_path / ("x" * 300), tmp_path)

    assert problems == [
        "none:1: is no directory, expected a catalogue directory",
        f"{'x' * 300}:1: cannot be read (OSError), expected a readable directory",
        "providers.yml:1: cannot be read (FileNotFoundError), expected a readable file",
        "limits.yml:1: is no file, expected a readable file",
        "models.yml:3: is no UTF-8, expected text in UTF-8",
        "features:1: cannot be read (NotADirectoryError), expected a readable directory",
        "prompts/loop.jinja:1: cannot be read (FileNotFoundError), expected a readable file",
    ]


@pytest.mark.parametrize("text", ["- " * 50_000 + "x", "[" * 50_000 + "]" * 50_000, "{a: " * 50_000 + "}" * 50_000])
def test_a_file_of_endless_levels_ends_no_process(tmp_path: Path, text: str) -> None:
    assert problems_of(write(tmp_path, models=text))[0].startswith("models.yml:1: nested too deeply, expected a few")


def test_files_whose_names_end_in_large_letters_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    for name in ("LIMITS.YML", "features/x.YML"):
        (tmp_path / name).write_text("[]")

    assert problems_of(tmp_path) == [
        "LIMITS.YML:1: unknown name, did you mean `limits.yml`?",
        "features/x.YML:1: unknown name, expected features/<name>.yml",
    ]


def test_a_deployment_at_a_server_without_any_address_is_told_with_its_line(tmp_path: Path) -> None:
    text = "models:\n- name: m\n  title: T\n  deployments:\n  - {provider: p, model: m%s}"
    write(tmp_path, providers="- {name: p, dialect: chat_completions}", models=text % "")

    assert problems_of(tmp_path) == [
        "models.yml:2: m: provider `p` has no address, expected `base_url` or `base_url_env` there, or `base_url` here"
    ]

    write(tmp_path, models=text % ", base_url: 'http://p'")

    load_catalogue([tmp_path])


def test_foreign_files_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / ".git").mkdir()

    assert load_catalogue([tmp_path]).overrides == ()


def test_a_mounted_config_map_is_read_through_its_links_once(tmp_path: Path) -> None:
    real = write(
        tmp_path / "..2026",
        models=MODEL.format(name="own"),
        **{"prompts__own__base__1.0.0": "name: x\nunit_primitive: fix_code\nprompt_template: {user: hello}"},
    )
    mount = tmp_path / "mount"
    mount.mkdir()
    for name in ("models.yml", "prompts"):
        (mount / name).symlink_to(real / name)
    (real / "prompts/again").symlink_to(real / "prompts")

    catalogue = load_catalogue([mount])

    assert "own" in catalogue.models
    assert [name for name in catalogue.prompts if "own" in name] == ["own"]


def test_texts_that_other_yaml_readers_take_for_something_else_stay_texts() -> None:
    text = (
        "- {name: on, description: 2024-10-17, feature_category: 1:30, cut_off_date: 0x1F, min_gitlab_version: 1_000}"
    )

    (record,) = Document("x", text).convert(tuple[UnitPrimitive, ...])

    assert (record.name, record.description, record.feature_category) == ("on", "2024-10-17", "1:30")
    assert (record.cut_off_date, record.min_gitlab_version) == ("0x1F", "1_000")


def test_a_leading_zero_makes_no_octal_number_and_a_key_that_is_no_text_is_named() -> None:
    assert Document("x", "{a: 010, b: 08, c: 1}").convert(dict[str, int]) == {"a": 10, "b": 8, "c": 1}
    assert faults_of("9" * 5000)  # Python reads no whole number of that length
    for text in ("00:", "~:", "1: []"):
        assert faults_of(text)[0].startswith("f.yml:1: unknown member")


def faults_of(text: str) -> list[str]:
    try:
        Document("f.yml", text).convert(ModelsFile)
    except BadCatalogue as bad:
        return bad.problems
    return []


@given(st.text(max_size=60) | st.text(alphabet="models: -[]{}\n'\"&*!|>#", max_size=40))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    for problem in faults_of(text):
        name, line, *_ = problem.split(":")
        assert name == "f.yml"
        assert int(line) >= 1


def test_overlay_paths_are_separated_by_colons() -> None:
    assert overlay_paths("") == ()
    assert overlay_paths("a:b/c:") == (Path("a"), Path("b/c"))


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner(env={name: None for name in os.environ if name.startswith("AIGW_")})


def test_torana_check_passes_on_what_is_shipped(runner: CliRunner) -> None:
    result = runner.invoke(check, ["--json"])

    report = json.loads(result.output)
    assert (result.exit_code, report["ok"], report["problems"]) == (0, True, [])
    assert report["counts"]["prompt_files"] >= 8


def test_torana_check_prints_overrides_and_errors_and_says_no(runner: CliRunner, tmp_path: Path) -> None:
    good = write(tmp_path / "good", models=MODEL.format(name="demo"))
    bad = write(
        tmp_path / "bad",
        **{"prompts__own__base__1.0.0": "name: x\nunit_primitive: fly\nprompt_template: {user: '{{ x() }}'}"},
    )

    fine = runner.invoke(check, ["--catalog", str(good)])
    faulty = runner.invoke(check, [], env={"AIGW_CATALOG": f"{good}:{bad}"})

    assert fine.exit_code == 0
    assert f"overrides: models demo: {good}/models.yml:2 replaces " in fine.output
    assert faulty.exit_code == 1
    assert f"error: {bad}/prompts/own/base/1.0.0.yml:2: unknown unit primitive `fly`" in faulty.output
    assert f"error: {bad}/prompts/own/base/1.0.0.yml:3: `(…)` is not allowed" in faulty.output


def test_torana_check_notes_what_may_be_a_slip(runner: CliRunner, tmp_path: Path) -> None:
    prompt = "name: x\nunit_primitives: [duo_chat]\nprompt_template: {user: hi}\n"
    for variant in ("base", "mistral", "mistrall", "chosen"):
        write(tmp_path, **{f"prompts__own__{variant}__1.0.0": prompt})
    write(tmp_path, **{"prompts__narrow__mistral__1.0.0": prompt})

    result = runner.invoke(
        check, ["--json", "--catalog", str(tmp_path)], env={"AIGW_DEFAULT_PROMPTS": '{"own": "chosen"}'}
    )

    narrow, misspelt = (f"{tmp_path}/prompts/{name}/1.0.0.yml:1" for name in ("narrow/mistral", "own/mistrall"))
    assert json.loads(result.output)["notes"] == [
        f"{narrow}: no variant `base`: models of other families do not find the prompt",
        f"{misspelt}: variant `mistrall` is for no model, did you mean `mistral`?",
    ]
    assert result.exit_code == 0


def test_torana_check_tells_of_a_file_whose_name_is_no_text(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.yml")).write_text("x: 1")

    result = runner.invoke(check, ["--json", "--catalog", str(tmp_path)])

    assert result.exit_code == 1
    assert json.loads(result.output)["problems"] == [f"{tmp_path}/\udcff.yml:1: unknown name, did you mean `deny.yml`?"]


def test_torana_check_says_2_for_a_bad_setting(runner: CliRunner) -> None:
    result = runner.invoke(main, ["check"], env={"AIGW_PROMPTS__MAX_ITERATIONS": "many"})

    assert result.exit_code == 2
    assert "AIGW_PROMPTS__MAX_ITERATIONS: " in result.output


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ("{max_retries: two}", "`max_retries` is 'two', expected a whole number, 0 or more"),
        ('{max_tokens: "60"}', "`max_tokens` is '60', expected a whole number, 1 or more"),
        ("{max_tokens: 0}", "`max_tokens` is 0, expected a whole number, 1 or more"),
        ("{temperature: -1}", "`temperature` is -1, expected a number, 0 or more"),
        ("{max_token: 60}", "unknown parameter `max_token`, did you mean `max_tokens`?"),
        ("{model: gpt-5.4}", "`model` is no parameter, expected it left out: the gateway says this itself"),
        ("{messages: []}", "`messages` is no parameter, expected it left out: the gateway says this itself"),
        ("{temprature: 0.2}", "unknown parameter `temprature`, did you mean `temperature`?"),
        ("{stop: 5}", "`stop` is 5, expected a text or a list of texts, none of them empty"),
        ("{stop: [a, 5]}", "`stop` is ['a', 5], expected a text or a list of texts, none of them empty"),
        ("{stop: ['']}", "`stop` is [''], expected a text or a list of texts, none of them empty"),
        ("{stop: [a, b], timeout: 5}", ""),
        ("{seed: 7, top_a: 0.5, min_p: 0.1, max_completion_tokens: 5, temperature: null, top_k: 0}", ""),
    ],
)
def test_parameters_that_would_spoil_calls_are_refused_and_providers_own_pass(
    tmp_path: Path, params: str, told: str
) -> None:
    model = MODEL.format(name="m").replace("title: T", f"title: T\n  params: {params}")
    prompt = f"name: x\nunit_primitives: [duo_chat]\nmodel:\n  params: {params}\nprompt_template: {{user: hi}}\n"
    write(tmp_path, models__models=model, **{"prompts__prompts__a__base__1.0.0": prompt})

    for folder, place in (("models", "models.yml:2: m:"), ("prompts", "prompts/a/base/1.0.0.yml:4:")):
        result = CliRunner().invoke(check, ["--json", "--catalog", str(tmp_path / folder)])
        problems = [each.partition(" | ")[0] for each in json.loads(result.output)["problems"]]
        assert problems == ([f"{tmp_path / folder}/{place} {told}"] if told else [])


SINK = "- {name: billing, type: http, url: 'https://billing.example/usage'}"


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("- {name: Bad Name, type: stdout}", "`Bad Name` is no name of a sink"),
        ("- {name: a, type: carrier_pigeon}", "carrier_pigeon"),
        ("- {name: a, type: file}", "type file has no `path`"),
        ("- {name: a, type: http}", "type http has no `url`"),
        ("- {name: a, type: http, url: 'ftp://x'}", "`ftp` is no scheme of http"),
        ("- {name: a, type: http, url: 'http://['}", "`http://[` is no address"),
        ("- {name: a, type: http, url: 'https://u:canary@x/'}", "`url` is no address"),
        ("- {name: a, type: postgres, url: 'postgresql://u:canary@x/', batch: 0}", "//***@x"),
        ("- {name: a, type: otlp, url: 'https://x:y/v1/logs'}", "`https://x:y/v1/logs` is no address"),
        ("- {name: a, type: redis, url: 'redis://x:y'}", "`redis://x:y` is no address"),
        ("- {name: a, type: http, url: 'http://x', headers: {a b: c}}", "header `a b` cannot be sent"),
        ("- {name: a, type: http, url: 'http://x', dedupe_window_s: -1}", "`dedupe_window_s` is too small"),
        ("- {name: a, type: http, url: 'http://x', retry_max_s: -1}", "`retry_max_s` is too small"),
        ("- {name: a, type: file, path: x, max_bytes: 0}", "`max_bytes` is too small"),
        ("- {name: a, type: file, path: x, keep_files: -1}", "`keep_files` is too small"),
        ("- {name: a, type: redis, max_length: -1}", "`max_length` is too small"),
        ("- {name: a, type: http, url: 'http://x', token_env: PATH}", "`PATH` is not read"),
        ("- {name: a, type: postgres, url_env: AIGW_SINK__DSN, table: 'x; drop'}", "no name of a table"),
        ("- {name: a, type: rollup, keep: {minute: -1}}", "`minute` is too small"),
        ("- {name: a, type: rollup, keep: {day: 0.5}}", "`day` is too small"),
        ("- {name: a, type: stdout, batch: 0}", "`batch` is too small"),
        ("- {name: a, type: stdout, colour: red}", "colour"),
    ],
)
def test_a_sink_that_cannot_be_is_named_with_its_line(tmp_path: Path, wrong: str, problem: str) -> None:
    write(tmp_path, sinks=f"{SINK}\n{wrong}")

    (found,) = problems_of(tmp_path)

    assert found.startswith("sinks.yml:2: ")
    assert problem in found


@pytest.mark.parametrize(
    ("sink", "again", "member"),
    [
        ("type: file, path: /x/usage.jsonl", "type: file, path: /x/y/../usage.jsonl, max_bytes: 9", "path"),
        ("type: file, path: /x/usage", "type: rollup, path: /x/usage", "path"),
        ("type: stdout", "type: stdout, batch: 1", "type"),
        ("type: http, url: 'http://x/'", "type: http, url: 'http://x/', tries: 1", "url"),
        ("type: otlp, url_env: AIGW_SINK__U", "type: otlp, url_env: AIGW_SINK__U", "url_env"),
        ("type: redis", "type: redis, max_length: 9", "stream"),
        ("type: postgres, url_env: AIGW_SINK__DSN", "type: postgres, url_env: AIGW_SINK__DSN", "table"),
    ],
)
def test_two_sinks_that_write_to_one_place_are_refused(tmp_path: Path, sink: str, again: str, member: str) -> None:
    write(tmp_path, sinks=f"- {{name: a, {sink}}}\n- {{name: b, {again}}}")

    assert problems_of(tmp_path) == [
        f"sinks.yml:2: b: writes where `a` does, expected another `{member}`, or `enabled: false` of one of them"
    ]


@pytest.mark.parametrize(
    "sinks",
    [
        "- {name: a, type: stdout}\n- {name: b, type: stdout, enabled: false}",
        "- {name: a, type: http, url: 'http://x'}\n- {name: b, type: http, url: 'http://x', headers: {tenant: t}}",
        "- {name: a, type: redis}\n- {name: b, type: redis, stream: other}",
        "- {name: a, type: rollup, path: /x/a}\n- {name: b, type: file, path: /x/b}",
    ],
)
def test_sinks_of_one_kind_may_write_to_several_places(tmp_path: Path, sinks: str) -> None:
    write(tmp_path, sinks=sinks)

    assert {"a", "b"} <= load_catalogue([tmp_path]).sinks.keys()


def test_a_sink_of_an_overlay_switches_the_shipped_one_off(tmp_path: Path) -> None:
    write(tmp_path, sinks="- {name: rollup, type: rollup, enabled: false}")

    assert [sink.enabled for sink in load_catalogue([tmp_path]).sinks.values()] == [False]
