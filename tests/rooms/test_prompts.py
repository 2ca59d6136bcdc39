"""The prompts room: which prompt is found, and what it becomes."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from torana.catalog.load import load_catalogue
from torana.chat import Message, Text
from torana.clock import Clock
from torana.errors import BadCatalogue, Invalid, Refusal
from torana.prompts.registry import Prompts
from torana.settings import CatalogueSettings

PROMPT = """\
name: Greeting
model: {{params: {params}}}
unit_primitives: [explain_code]
prompt_template:
{template}
params: {rest}
"""


class FixedClock(Clock):
    def now(self) -> float:
        return 1_787_356_800.0  # 22 August 2026


def write(root: Path, name: str, *, template: str = "  user: hello", params: str = "{}", rest: str = "{}") -> None:
    path = root / "prompts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROMPT.format(params=params, template=template, rest=rest), encoding="utf-8")


def prompts(root: Path | None = None, **settings: Any) -> Prompts:
    return Prompts(load_catalogue([root] if root else []), CatalogueSettings(**settings), FixedClock())


def texts(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


@pytest.mark.parametrize(
    ("constraint", "version"),
    [
        (None, "1.2.0"),
        ("^1.0.0", "1.2.0"),
        ("1.0.0", "1.0.0"),
        ("1.0.1-dev", "1.0.0"),
        ("1.2.0", "1.2.0"),
        ("2.0.0", "2.0.0"),
        ("^2.0.1", "2.1.0"),
        ("3.0.2-dev", "3.0.0"),
    ],
)
def test_generations_has_a_version_for_every_constraint_that_clients_send(constraint: str | None, version: str) -> None:
    assert prompts().find("code_suggestions/generations", constraint).version == version


CODE = {"prefix": "package main\n", "language": "go", "file_name": "app.go"}
ENHANCER = {
    "examples_array": [{"example": "e", "response": "r", "trigger_type": "comment"}],
    "trimmed_content_above_cursor": "package main\n",
    "trimmed_content_below_cursor": "",
    "related_files": ["one", {"name": "two"}],
    "related_snippets": "one",
    "libraries": ["net/http"],
    "user_instruction": "serve /healthz",
    "instruction": None,
}


@pytest.mark.parametrize(
    ("prompt_id", "constraint", "inputs"),
    [
        ("code_suggestions/completions", None, {**CODE, "suffix": "\n"}),
        ("code_suggestions/completions", None, {"prefix": "x"}),
        *[
            ("code_suggestions/generations", v, i)
            for v in ("1.0.0", "1.2.0", "2.0.0", "2.1.0", "3.0.0")
            for i in ({}, {**CODE, **ENHANCER})
        ],
        ("chat/explain_code", None, {"input": "?", "selected_text": "x", "file_content": None, "language_info": "Go"}),
        ("model_configuration/check", None, {}),
    ],
)
def test_a_shipped_prompt_asks_for_no_more_than_the_inputs_that_clients_send(
    prompt_id: str, constraint: str | None, inputs: dict[str, Any]
) -> None:
    room = prompts()

    chat = room.render(room.find(prompt_id, constraint), inputs)

    assert "user" in [message.role for message in chat.messages]
    assert not any("None" in message.text or message.text.startswith("\n") for message in chat.messages)
    assert chat.messages[-1].role == "user"  # newer models refuse to continue an answer that was begun for them
    assert chat.answer == ("code" if prompt_id.startswith("code_") else "text")


def test_all_shipped_prompts_are_sound() -> None:
    assert prompts().check() == []


def test_the_connection_check_is_cheap_and_not_repeated() -> None:
    room = prompts()
    chat = room.render(room.find("model_configuration/check"), {})

    assert (chat.max_tokens, chat.tries) == (8, 1)


@pytest.mark.parametrize(
    "prompt_id",
    [
        "nothing",
        "",
        "chat",
        "chat/",
        "chat//explain_code",
        "../chat/explain_code",
        "chat/explain_code/base",
        "chat\\explain_code",
        "chat%2Fexplain_code",
        "chat/./explain_code",
        "chat/explain_code\0",
    ],
)
def test_an_unknown_prompt_is_404_whatever_its_id_looks_like(prompt_id: str) -> None:
    with pytest.raises(Refusal) as refused:
        prompts().find(prompt_id)

    assert (refused.value.status, refused.value.code) == (404, "prompt_not_found")
    assert refused.value.members == {"detail": f"Prompt '{prompt_id}' not found"}


def test_a_range_without_a_version_is_400_and_a_bad_constraint_422() -> None:
    with pytest.raises(Refusal) as unmatched:
        prompts().find("chat/explain_code", "^7.0.0")
    with pytest.raises(Invalid) as invalid:
        prompts().find("chat/explain_code", "newest")

    assert (unmatched.value.status, unmatched.value.code) == (400, "prompt_version_unmatched")
    assert invalid.value.members["detail"][0]["msg"] == "Invalid version constraint"


def test_a_pin_without_a_file_is_logged_and_one_with_a_file_is_not(caplog: pytest.LogCaptureFixture) -> None:
    room = prompts()
    with caplog.at_level(logging.WARNING, logger="torana.prompts"):
        room.find("code_suggestions/generations", "1.2.0")
        assert caplog.records == []
        room.find("code_suggestions/generations", "3.0.2-dev")

    assert [record.__dict__["used_version"] for record in caplog.records] == ["3.0.0"]


@pytest.mark.parametrize(
    ("families", "default", "variant"),
    [
        ((), {}, "base"),
        (("mixtral", "mistral"), {}, "mistral"),
        (("llama3",), {}, "base"),
        (("llama3",), {"greet": "claude"}, "claude"),
        (("mistral",), {"greet": "claude"}, "mistral"),
        ((), {"greet": "gone"}, "base"),
    ],
)
def test_the_variant_is_the_first_family_that_exists_then_the_operators_default_then_base(
    tmp_path: Path, families: tuple[str, ...], default: dict[str, Any], variant: str
) -> None:
    for name in ("base", "mistral", "claude"):
        write(tmp_path, f"greet/{name}/1.0.0.yml")

    assert prompts(tmp_path, default_prompts=default).find("greet", None, families).variant == variant


def test_roles_become_messages_in_the_order_of_the_file(tmp_path: Path) -> None:
    template = """\
  system_static: rules
  system_dynamic: "today {{ current_date }}"
  placeholder: history
  user: ["{{ a }}", "two"]
  assistant: "{% if false %}x{% endif %}"
"""
    write(tmp_path, "greet/base/1.0.0.yml", template=template)
    room = prompts(tmp_path)
    prompt = room.find("greet")
    history = [
        {"role": "user", "content": "{{ hi }}"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": ""},
    ]

    chat = room.render(prompt, {"a": "{{ b }}", "history": history})

    assert texts(chat.messages) == [
        ("system", "rules"),
        ("system", "today August 22, 2026"),
        ("user", "{{ hi }}"),
        ("assistant", "yes"),
        ("user", "{{ b }}\ntwo"),
    ]
    # The same for everybody: a provider may keep it.
    assert chat.messages[0].parts == (Text("rules", cached=True),)
    assert chat.messages[1].parts == (Text("today August 22, 2026"),)
    assert prompt.variables == {"a", "history"}
    assert not prompt.is_simple


@pytest.mark.parametrize(
    ("history", "loc"),
    [
        (None, ["history"]),
        ("text", ["history"]),
        ([{"role": "tool", "content": "x"}], ["history", 0]),
        ([{"role": "user", "content": "x"}, {"role": "user"}], ["history", 1]),
        ([{"role": ["user"], "content": "x"}], ["history", 0]),
    ],
)
def test_a_history_of_another_shape_is_refused_by_place(tmp_path: Path, history: Any, loc: list[Any]) -> None:
    write(tmp_path, "greet/base/1.0.0.yml", template="  placeholder: history")
    room = prompts(tmp_path)

    with pytest.raises(Invalid) as refused:
        room.render(room.find("greet"), {"history": history})

    assert refused.value.members["detail"][0]["loc"] == ["body", "inputs", *loc]


def test_a_missing_input_is_named() -> None:
    room = prompts()

    with pytest.raises(Invalid) as refused:
        room.render(room.find("chat/explain_code"), {"input": "?"})

    assert refused.value.members["detail"] == [
        {"loc": ["body", "inputs", "selected_text"], "msg": "Missing input 'selected_text'", "type": "missing"}
    ]


def test_the_prompt_files_parameters_win_over_the_models(tmp_path: Path) -> None:
    write(
        tmp_path,
        "greet/base/1.0.0.yml",
        params="{temperature: 0.5, max_retries: 2, seed: 7}",
        rest="{stop: [END], timeout: 12.5, answer: json}",
    )
    room = prompts(tmp_path)

    chat = room.render(room.find("greet"), {}, model_params={"temperature": 0.9, "top_k": 5, "seed": 1, "other": True})

    assert (chat.temperature, chat.top_k, chat.max_tokens, chat.tries) == (0.5, 5, None, 3)
    assert (chat.stop, chat.timeout_s, chat.answer) == (("END",), 12.5, "json")
    assert chat.extra == {"seed": 7, "other": True}


def test_the_operators_chat_limit_comes_last_and_for_chat_steps_only(tmp_path: Path) -> None:
    write(tmp_path, "step/base/1.0.0.yml", params="{max_tokens: 2048}", rest="{answer: react}")
    write(tmp_path, "other/base/1.0.0.yml", params="{max_tokens: 2048}")
    room = prompts(tmp_path, chat_max_tokens=99)

    limits = [room.render(room.find(name), {}).max_tokens for name in ("step", "other")]

    assert limits == [99, 2048]
    assert not room.find("step").is_simple


def test_the_date_that_a_client_sends_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "greet/base/1.0.0.yml", template='  user: "{{ current_date }}"')
    room = prompts(tmp_path)

    assert room.render(room.find("greet"), {"current_date": "some day"}).messages[0].text == "some day"


def test_the_output_cap_counts_all_messages_together(tmp_path: Path) -> None:
    write(tmp_path, "greet/base/1.0.0.yml", template='  system: "{{ a }}"\n  user: "{{ a }}"')
    room = prompts(tmp_path, max_output_chars=10)
    prompt = room.find("greet")

    assert len(room.render(prompt, {"a": "12345"}).messages) == 2
    with pytest.raises(Invalid, match="request_invalid"):
        room.render(prompt, {"a": "123456"})


@pytest.mark.parametrize("inputs", [{"a": "x" * 20}, {"a": {"a": "x" * 20}}])
def test_what_is_too_large_says_so(tmp_path: Path, inputs: Mapping[str, Any]) -> None:
    write(tmp_path, "greet/base/1.0.0.yml", template='  user: "{{ a }}"')
    room = prompts(tmp_path, max_output_chars=10)

    with pytest.raises(Invalid) as refused:
        room.render(room.find("greet"), inputs)

    assert refused.value.members["detail"][0]["msg"] == "Prompt is too large"


def test_both_spellings_of_the_unit_primitive_are_read(tmp_path: Path) -> None:
    write(tmp_path, "greet/base/1.0.0.yml")
    path = tmp_path / "prompts/greet/base/1.0.0.yml"
    path.write_text(path.read_text().replace("unit_primitives: [explain_code]", "unit_primitive: fix_code"))

    assert prompts(tmp_path).find("greet").unit_primitives == ("fix_code",)


def test_an_overlay_replaces_a_shipped_version_and_adds_one(tmp_path: Path) -> None:
    write(tmp_path, "chat/explain_code/base/1.0.0.yml")
    write(tmp_path, "chat/explain_code/base/1.1.0-dev.yml")
    room = prompts(tmp_path)

    assert room.find("chat/explain_code").name == "Greeting"
    assert room.find("chat/explain_code", "1.1.0-dev").version == "1.1.0-dev"


@pytest.mark.parametrize(
    ("template", "line", "said"),
    [
        ("  user: '{{ x.y() }}'", 5, "`(…)` is not allowed"),
        ("  user: |-\n    one\n    {{ 2 * x }}", 7, "`*` is not allowed"),
        (
            "  user: '{{ x'",
            5,
            "unexpected end of template, expected 'end of print statement', expected a Jinja template",
        ),
        ("  user: [a, '{% include \"no.jinja\" %}']", 5, "includes `no.jinja`, which does not exist"),
        ("  user: '{% include \"round.jinja\" %}'", 5, "`round.jinja` includes itself"),
        ("  human: hello", 5, "unknown role `human`"),
        ("  system: ' '\n  user: ['', '']", 5, "has no texts, expected at least one role with a text"),
        ("  placeholder: '{{ a b }}'", 5, "`placeholder` names no input"),
        ("  user: '{{ x|replace(1) }}'", 5, "filter `replace` takes no such arguments, expected `replace(old, new)`"),
        ("  user: '{{ x|tojson(indent=2) }}'", 5, "filter `tojson` takes no such arguments, expected `tojson`"),
        (
            "  user: '{{ x|truncate(9, true, 1) }}'",
            5,
            "filter `truncate` takes no such arguments, expected `truncate(length=255, end='…')`",
        ),
        ("  user: '{{ x|join(d=1) }}'", 5, "filter `join` takes no such arguments, expected `join('')`"),
    ],
)
def test_a_broken_overlay_prompt_is_refused_at_load_with_file_and_line(
    tmp_path: Path, template: str, line: int, said: str
) -> None:
    write(tmp_path, "greet/base/1.0.0.yml", template=template)
    (tmp_path / "prompts/round.jinja").write_text("{% include 'round.jinja' %}")

    with pytest.raises(BadCatalogue) as refused:
        prompts(tmp_path)

    path = tmp_path / "prompts/greet/base/1.0.0.yml"
    assert len(refused.value.problems) == 1
    assert refused.value.problems[0].startswith(f"{path}:{line}: {said}")


def test_what_is_wrong_in_an_included_template_is_told_there_and_where_it_is_included(tmp_path: Path) -> None:
    template = "  system: hello\n  user: |-\n    one\n    {% include 'outer.jinja' %}\n    three\n    four"
    write(tmp_path, "greet/base/1.0.0.yml", template=template)
    (tmp_path / "prompts/outer.jinja").write_text("{% include 'inner.jinja' %}")
    (tmp_path / "prompts/inner.jinja").write_text("one\ntwo\n{{ x.y() }}")

    with pytest.raises(BadCatalogue) as refused:
        prompts(tmp_path)

    assert [problem.partition(", expected")[0] for problem in refused.value.problems] == [
        f"{tmp_path}/prompts/greet/base/1.0.0.yml:8: includes `outer.jinja`, in whose line 1 "
        "includes `inner.jinja`, in whose line 3 `(…)` is not allowed",
        f"{tmp_path}/prompts/inner.jinja:3: `(…)` is not allowed",
        f"{tmp_path}/prompts/outer.jinja:1: includes `inner.jinja`, in whose line 3 `(…)` is not allowed",
    ]


def test_every_problem_of_the_overlays_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a/base/1.0.0.yml", params="{max_tokens: many, temperature: true}")
    write(tmp_path, "b/base/1.0.0-rc1.yml")
    write(tmp_path, "b/base/1.0.0-rc.1.yml")
    (tmp_path / "prompts/bad.jinja").write_text("fine\n{% macro m() %}{% endmacro %}")
    (tmp_path / "prompts/c/base").mkdir(parents=True)
    unknown = PROMPT.format(params="{}", template="  user: hello", rest="{}").replace("explain_code", "fly")
    (tmp_path / "prompts/c/base/1.0.0.yml").write_text(unknown)

    with pytest.raises(BadCatalogue) as refused:
        prompts(tmp_path)

    told = [problem.removeprefix(f"{tmp_path}/prompts/") for problem in refused.value.problems]
    assert [problem.partition(",")[0] for problem in told] == [
        "a/base/1.0.0.yml:2: `max_tokens` is 'many'",
        "a/base/1.0.0.yml:2: `temperature` is True",
        "c/base/1.0.0.yml:3: unknown unit primitive `fly`",
        "bad.jinja:2: `macro` is not allowed",
        "b/base/1.0.0-rc1.yml:1: is the same version as 1.0.0-rc.1.yml",
    ]


@pytest.mark.parametrize(
    ("template", "marked"),
    [
        ('{system: rules, user: "{{ a }}"}', [True, False]),
        ('{system: "{% if a is defined %}x{% endif %}rules", user: "{{ a }}"}', [False, False]),
        ('{system_static: one, system_two: two, system_dynamic: "{{ a }}"}', [False, True, False]),
        ('{system_dynamic: "{{ a }}", system_static: rules}', [False, False]),
        ('{system: "{{ current_date }}", user: "{{ a }}"}', [False, False]),
        ("{system: rules}", [True]),
    ],
)
def test_the_head_that_is_the_same_for_everybody_is_marked_for_caches(
    tmp_path: Path, template: str, marked: list[bool]
) -> None:
    write(tmp_path, "greet/base/1.0.0.yml", template=f"  {template}\n")
    room = prompts(tmp_path)

    chat = room.render(room.find("greet"), {"a": "b"})

    assert [getattr(message.parts[0], "cached", None) for message in chat.messages] == marked
