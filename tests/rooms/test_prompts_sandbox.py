"""The sandbox: what templates may do, what hostile ones are refused, and what inputs cannot do."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torana.errors import Invalid
from torana.prompts.filters import FILTERS, TooLarge, largest_result
from torana.prompts.grammar import BadTemplate
from torana.prompts.sandbox import Meter, Sandbox, render_text, with_meter

TEMPLATES = {
    "a/hello.jinja": "Hello {{ name }}",
    "a/loop.jinja": "{% include 'a/loop.jinja' %}",
    **{f"a/{n}.jinja": f"{{% include 'a/{n + 1}.jinja' %}}{{% include 'a/{n + 1}.jinja' %}}" for n in range(40)},
    "a/40.jinja": "",
}


def rendered(text: str, *, chars: int = 1000, turns: int = 100, **values: Any) -> str:
    return render_text(Sandbox(TEMPLATES).compile_text(text), with_meter(values, Meter(chars, turns)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("{{ x.a.b }} {{ x['a']['b'] }} {{ xs[0] }} {{ xs[-1] }} {{ xs[1:] }}", "1 1 p r ['q', 'r']"),
        ("{% for y in xs %}{{ loop.index }}{{ y }}{% if not loop.last %},{% endif %}{% endfor %}", "1p,2q,3r"),
        ("{% for k, v in x|items %}{{ k }}{% endfor %}", "a"),
        ("{% for y in xs if y != 'q' %}{{ y }}{% else %}none{% endfor %}", "pr"),
        ("{% set t = 'a' ~ xs|length %}{{ t + '!' }}", "a3!"),
        ("{{ [t, 'b']|join('-') }}", "é<&-b"),
        ("{{ t|upper }}{{ t|trim|lower|replace('é', 'e') }}", "É<&e<&"),
        ("{{ nothing|default('d') }}{{ none_|default('d', true) }}{{ nothing is defined }}", "ddFalse"),
        ("{{ x|tojson }}{{ t|tojson }}", '{"a": {"b": 1}}"é<&"'),
        ("{{ 'l1\nl2'|indent(2) }}", "l1\n  l2"),
        ("{{ lines|indent(2, true) }}", "  a\rb\r\n  c\n\n"),
        ("{{ t.index is defined }} {{ xs.index is defined }}", "False False"),
        ("{{ xs[:2] }} {{ xs[1:2] }}", "['p', 'q'] ['q']"),
        ("{{ xs|first }}{{ xs|last }}{{ 'abcdef'|truncate(3) }}", "prabc…"),
        ("{% include 'a/hello.jinja' %}", "Hello Ada"),
        ("{% with name = 'Bob' %}{% include 'a/hello.jinja' %}{% endwith %}", "Hello Bob"),
        ("{% if 'p' in xs and x.a is mapping %}yes{% endif %}{{ 'a' if none_ else 'b' }}", "yesb"),
        ("{% raw %}{{ x }}{% endraw %}{# gone #}", "{{ x }}"),
        ("{{ loop.index if false else x['items'] is defined }}", "False"),
    ],
)
def test_a_template_looks_up_loops_includes_and_filters(text: str, expected: str) -> None:
    values: dict[str, Any] = {"x": {"a": {"b": 1}}, "xs": ["p", "q", "r"], "t": "é<&", "none_": None, "name": "Ada"}

    assert rendered(text, lines="a\rb\r\nc\n\n", **values) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{ x.__class__ }}",
        "{{ x['__class__'] }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ x|attr('a') }}",
        "{{ xs|map('upper') }}",
        "{{ x|safe }}",
        "{{ x is callable }}",
        "{{ x() }}",
        "{{ 'a'.upper() }}",
        "{{ range(9) }}",
        "{{ lipsum() }}",
        "{{ cycler.__init__ }}",
        "{{ 'a' * 9 }}",
        "{{ 2 ** 9 }}",
        "{{ '%9d' % 1 }}",
        "{{ 1 / 1 }}",
        "{{ self }}",
        "{{ _x }}",
        "{{ xs[::2] }}",
        "{{ [x] }}",
        "{{ {'a': x} }}",
        "{% set l = [[x, x], x] %}",
        "{{ [[x, x], x]|join }}",
        "{% set y %}text{% endset %}",
        "{% set ns.x = 1 %}",
        "{% filter upper %}a{% endfilter %}",
        "{% macro m() %}{% endmacro %}",
        "{% call x() %}{% endcall %}",
        "{% block b %}{% endblock %}",
        "{% extends 'a/hello.jinja' %}",
        "{% import 'a/hello.jinja' as h %}",
        "{% from 'a/hello.jinja' import h %}",
        "{% include x %}",
        "{% include 5 %}",
        "{% include ['a/hello.jinja'] %}",
        "{% include 'a/' ~ x %}",
        "{% include 'a/hello.jinja' without context %}",
        "{% for y in xs recursive %}{% endfor %}",
        "{% autoescape true %}{% endautoescape %}",
        "{% do x %}",
        "{{ x|replace(*xs) }}",
        "{{ 1e999|int }}",
        "{{ " + "9" * 5000 + " }}",
        "{{ 0x" + "f" * 5000 + " }}",
        "{{ x",
        "{% if %}",
        "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
        "{% for y in xs %}" * 25 + "{% endfor %}" * 25,
    ],
)
def test_a_hostile_template_is_refused_before_it_runs(text: str) -> None:
    with pytest.raises(BadTemplate):
        Sandbox(TEMPLATES).compile_text("first line\n" + text)


@pytest.mark.parametrize("fault", ["{{ x() }}", "{% autoescape true %}x{% endautoescape %}"])
def test_a_refusal_names_the_line(fault: str) -> None:
    with pytest.raises(BadTemplate) as refused:
        Sandbox({}).compile_text(f"one\ntwo\n{fault}")

    assert refused.value.line == 3


@pytest.mark.parametrize(
    "text",
    [
        "{{ t }}{{ t }}",
        "{{ t ~ t ~ t ~ t ~ t }}",
        "{% set a = t + t %}{% set b = a + a %}{% set c = b + b %}",
        "{{ t|replace('x', t) }}",
        "{{ [t, t, t, t, t]|join }}",
        "{{ xs|join(t) }}",
        "{{ t|indent(65) }}",
        "{% set a = t|upper %}{% set b = t|upper %}{% set c = t|upper %}{% set d = t|upper %}{% set e = t|upper %}",
        "{% set a = t[1:] %}{% set b = t[1:] %}{% set c = t[1:] %}{% set d = t[1:] %}{% set e = t[1:] %}",
        "{% for a in xs %}{% for b in xs %}{% endfor %}{% endfor %}",
        "{% for a in t %}{% endfor %}",
        "{% include 'a/loop.jinja' %}",
        "{% include 'a/0.jinja' %}",
    ],
)
def test_a_template_that_grows_without_end_is_stopped(text: str) -> None:
    with pytest.raises(TooLarge):
        rendered(text, t="x" * 900, xs=list(range(10)))


_texts = st.text("ab \n\r\v\f\u2028", max_size=40)


@given(_texts, st.integers(0, 64), st.booleans(), st.booleans(), _texts, _texts)
def test_what_may_grow_is_bounded_before_it_does(
    text: str, width: int, first: bool, blank: bool, old: str, new: str
) -> None:
    assert len(FILTERS["indent"](text, width, first, blank)) <= largest_result("indent", text, (width, first, blank))
    assert len(FILTERS["replace"](text, old, new)) <= largest_result("replace", text, (old, new))
    assert len(FILTERS["join"](text, new)) <= largest_result("join", text, (new,))


def test_output_and_turns_of_exactly_the_cap_are_fine_and_one_more_is_not() -> None:
    template = "{% for y in xs %}{{ y }}{% endfor %}"

    assert rendered(template, chars=3, turns=3, xs=["a", "b", "c"]) == "abc"
    with pytest.raises(TooLarge):
        rendered(template, chars=2, turns=3, xs=["a", "b", "c"])
    with pytest.raises(TooLarge):
        rendered(template, chars=3, turns=2, xs=["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{{ gone }}", "gone"),
        ("{{ gone|upper }}", "gone"),
        ("{{ gone|tojson }}", "gone"),
        ("{{ gone.a }}", "gone"),
        ("{% for y in gone %}{% endfor %}", "gone"),
        ("{% if gone %}{% endif %}", "gone"),
        ("{{ 'a' ~ gone }}", "gone"),
        ("{{ gone + 1 }}", "gone"),
        ("{{ x.gone }}", "gone"),
        ("{{ t.upper }}", "upper"),
        ("{{ t.format }}", "format"),
        ("{{ x.items }}", "items"),
        ("{{ xs.append }}", "append"),
        ("{{ x[key] }}", "__class__"),
        ("{{ range }}", "range"),
    ],
)
def test_what_is_absent_and_every_python_attribute_is_a_missing_input(text: str, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        rendered(text, x={"a": 1}, xs=[1], t="text", key="__class__")

    assert refused.value.members["detail"] == [
        {"loc": ["body", "inputs", name], "msg": f"Missing input '{name}'", "type": "missing"}
    ]


@pytest.mark.parametrize(
    "text",
    [
        "{{ t + 1 }}",
        "{% for y in n %}{% endfor %}",
        "{{ t|items }}",
        "{{ n|join }}",
        "{{ 'x'|int }}",
        "{{ t|truncate(9, true) }}",
    ],
)
def test_an_input_of_the_wrong_kind_is_the_callers_fault(text: str) -> None:
    with pytest.raises(Invalid):
        rendered(text, t="text", n=7)


@given(st.text() | st.sampled_from(["{{ 7 + 7 }}", "{% raw %}", "{# x", "<b>&amp;", "{{ x }}" * 3]))
def test_a_value_reaches_the_model_as_it_came(value: str) -> None:
    template = Sandbox({}).compile_text("<{{ x }}>")

    assert render_text(template, with_meter({"x": value}, Meter(10_000, 10))) == f"<{value}>"


def test_an_input_cannot_take_the_meters_place() -> None:
    values: dict[str, Any] = {" meter": None, "x": "a"}

    assert render_text(Sandbox({}).compile_text("{{ x|upper }}"), with_meter(values, Meter(10, 10))) == "A"


def test_variables_behind_a_test_or_a_default_may_be_absent() -> None:
    text = "{{ a }}{% if b is defined %}{{ b }}{% endif %}{{ c|default('') }}{% set d = 1 %}{{ d }}"

    survey = Sandbox({}).survey(text)

    assert survey.reads == {"a"}
    assert survey.binds == {"d"}


@pytest.mark.parametrize("look", ["{{ blank|trim }}", "{% if row in long %}{% endif %}", "{{ rows|truncate(1, '') }}"])
def test_a_loop_that_only_looks_at_large_inputs_is_stopped(look: str) -> None:
    values = {"rows": ["a" * 1_000 + "b"] * 5_000, "long": "a" * 4_000_000, "blank": " " * 8_000_000}
    before = time.thread_time()

    with pytest.raises(TooLarge):
        rendered(f"{{% for row in rows %}}{look}{{% endfor %}}", chars=8_000_000, turns=100_000, **values)

    assert time.thread_time() - before < 2
