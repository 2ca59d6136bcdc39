"""Code room: what becomes of a model's answer (contract 6.7)."""

import string
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from torana.code.clean import COMPLETION_STEPS, clean, clean_completion, clean_generation
from torana.code.comments import is_only_comments
from torana.code.fences import FenceStripper, strip_fences
from torana.code.orders import Cursor
from torana.code.repeats import drop_loops, drop_repeated_blocks, drop_repeated_end, drop_repeated_start
from torana.code.stops import StartCutter, StopCutter
from torana.code.syntax import _end_of_block_lexically, adds_errors, end_of_block, open_brackets
from torana.code.trees import Trees


def at(prefix: str, suffix: str = "", file_name: str = "a.py") -> Cursor:
    return Cursor(prefix=prefix, suffix=suffix, file_name=file_name, trees=Trees())


ADD = "def add(a, b):\n    "


@pytest.mark.parametrize(
    ("cursor", "answer", "wanted"),
    [
        pytest.param(at(ADD), "return a + b\n", "return a + b\n", id="a good answer is untouched"),
        pytest.param(at(ADD), "", "", id="empty stays empty"),
        pytest.param(at(ADD), " \n\t\n", "", id="blank becomes empty"),
        pytest.param(at(ADD), "# adds two numbers\n# and returns them\n", "", id="only comments"),
        pytest.param(at(ADD, file_name="a.xyz"), "# adds\n", "# adds\n", id="comments of an unknown language"),
        pytest.param(at(ADD), "# sum\n    return a + b", "# sum\n    return a + b", id="a comment with code"),
        pytest.param(at(ADD), "return a<|cursor|> + b<|fim_middle|>", "return a + b", id="stray markers"),
        pytest.param(at(ADD), "return a<cursor /> + b<cursor/>", "return a + b", id="stray tags"),
        pytest.param(at("<p><cursor/></p>\n"), "<q><cursor/></q>", "<q><cursor/></q>", id="a file about such tags"),
        pytest.param(
            at(ADD), "return a + b\n\n\ndef sub(a, b):\n    return a - b\n", "return a + b", id="beyond the function"
        ),
        pytest.param(at("def ad"), "d(a):\n    return a\n\nx = 1\n", "d(a):\n    return a", id="from within the name"),
        pytest.param(at(""), "x = 1\ny = 2\n", "x = 1\ny = 2\n", id="module level has no block"),
        pytest.param(
            at('it("a", () => {\n  ', "\n});\n", "a.js"),
            "f();\n});",
            "f();",
            id="the end of a call that is there already",
        ),
        pytest.param(
            at('it("a", () => {\n  ', "\n});\n", "a.js"),
            'f();\n});\n\nit("b", () => {\n  g();\n});',
            "f();",
            id="another call behind it",
        ),
        pytest.param(
            at('it("a", () => {\n  ', file_name="a.js"), "f();\n});\ng();\n", "f();\n});", id="the end of a call"
        ),
        pytest.param(
            at("if (a) {\n  ", "\n} else {\n  c();\n}\n", "a.js"), "b();\n} else {", "b();", id="the line that goes on"
        ),
        pytest.param(
            at("if (a) {\n  ", "\n} else {\n  c();\n}\n", "a.js"),
            "b();\n} else if (d) {\n  e();\n}",
            "b();",
            id="the brace that goes on otherwise",
        ),
        pytest.param(
            at("x = {\n  f: () => {\n    ", "\n  },\n};\n", "a.js"), "g();\n  },", "g();", id="the end of a member"
        ),
        pytest.param(
            at("if (\n  a\n) {\n  ", "\n}\n", "a.js"), ") {\n  b();\n}", "b();", id="the end of a condition again"
        ),
        pytest.param(
            at("go func() {\n\t", "\n}()\n", "a.go"), "f()\n}()", "f()", id="the end of a function that is called"
        ),
        pytest.param(
            at("if a {\n\t", file_name="a.go"), "b()\n} else {\n\tc()\n}\n", "b()\n}", id="no other block is begun"
        ),
        pytest.param(
            at("f(() => { if (a) { ", file_name="a.js"),
            "b(); } });\nc();\n",
            "b(); }",
            id="nor is one ended that is around",
        ),
        pytest.param(
            at("func f() int {\n\t", file_name="a.go"),
            "return 1\n}\n\nfunc g() int {\n\treturn 2\n}\n",
            "return 1\n}",
            id="a block with braces",
        ),
        pytest.param(
            at("func f() int {\n\t", "\n}\n", "a.go"), "return 1\n}", "return 1", id="the brace that is there already"
        ),
        pytest.param(
            at("func f() {\n\t", "\n}\n", "a.go"),
            "if x {\n\t\ty()\n\t}",
            "if x {\n\t\ty()\n\t}",
            id="a brace that closes an inner block",
        ),
        pytest.param(
            at("def f\n  ", "\nend\n", "a.rb"), "if x\n    y\n  end", "if x\n    y\n  end", id="an inner end of Ruby"
        ),
        pytest.param(at("def f\n  ", "\nend\n", "a.rb"), "y\nend", "y", id="an end that is there already"),
        pytest.param(at("print(", ")\n"), "a, b)", "a, b", id="the rest of the line"),
        pytest.param(at("print(", ")\n"), "max(a, b)", "max(a, b)", id="a bracket that the answer needs"),
        pytest.param(
            at(ADD, "\nprint(add(1, 2))\n"),
            "return a + b\nprint(add(1, 2))\n",
            "return a + b",
            id="the suffix's first line",
        ),
        pytest.param(
            at("def f(a):\n    x = a\n    ", "\n    y = x\n    return y\n"),
            "x += 1\n    y = x\n    return y",
            "x += 1",
            id="the suffix's first lines",
        ),
        pytest.param(at("def add("), "def add(a, b):", "a, b):", id="the typed line again"),
        pytest.param(at(ADD), "def add(a, b):\n    return a + b", "return a + b", id="the line above again"),
        pytest.param(at(ADD), "    return a + b", "return a + b", id="the indentation again"),
        pytest.param(at(ADD), "        x = a\n        y = b", "    x = a\n        y = b", id="more indentation"),
        pytest.param(at("- name: a\n", file_name="a.yml"), "  run: b", "  run: b", id="no indentation is there"),
        pytest.param(at("s:\n  - a: b\n  ", file_name="a.yml"), "    c: d\n", "  c: d\n", id="a deeper member"),
        pytest.param(
            at("s:\n  - a: b\n  ", file_name="a.yml"), "  - a: b\n    c: d\n", "  c: d\n", id="the item above again"
        ),
        pytest.param(
            at("s:\n  - a: b\n  ", file_name="a.yml"),
            "    - a: b\n      c: d\n      e: f",
            "  c: d\n    e: f",
            id="the item, deeper",
        ),
        pytest.param(
            at("for x in y:\n    if x:\n    "), "        f(x)", "    f(x)", id="what stands below an opened block"
        ),
        pytest.param(at("for x in y:\n    if x:\n    "), "    f(x)", "    f(x)", id="only how much deeper"),
        pytest.param(at(f'{ADD}"'), '""Sum."""\n', '""Sum."""\n', id="the rest of three quotes"),
        pytest.param(at("x = [\n    '"), "''a'''\n", "''a'''\n", id="the rest of three others"),
        pytest.param(at(f'{ADD}"'), '"Sum."', 'Sum."', id="a quote again"),
        pytest.param(at(f'{ADD}"""'), '"""Sum."""\n', 'Sum."""\n', id="three quotes again"),
        pytest.param(at("    return "), "returned", "returned", id="a longer word is no repetition"),
        pytest.param(
            at("a = 1\nb = 2\nc = 3\nd = 4\n"), "e = 5\na = 1\nb = 2\nc = 3\n", "e = 5\n", id="a block from above"
        ),
    ],
)
def test_a_completion_is_cleaned(cursor: Cursor, answer: str, wanted: str) -> None:
    assert clean_completion(answer, cursor) == wanted


@pytest.mark.parametrize(
    ("step", "cursor", "answer"),
    [
        ("drop_comments", at(ADD), "# adds"),
        ("remove_markers", at(ADD), "return a<|cursor|>"),
        ("trim_to_block", at(ADD), "return 1\n\n\nx = f()\n"),
        ("drop_repeated_blocks", at("a = 1\nb = 2\nc = 3\n\n"), "e = 5\na = 1\nb = 2\nc = 3\n"),
    ],
)
def test_a_step_that_is_excluded_by_name_does_not_run(step: str, cursor: Cursor, answer: str) -> None:
    assert step in COMPLETION_STEPS
    assert clean_completion(answer, cursor) != answer
    assert clean_completion(answer, cursor, excluded=[step]) == answer


@pytest.mark.parametrize(
    ("cleaning", "answer", "wanted"),
    [
        ("none", " \n", " \n"),
        ("none", "def add(a, b):\n    return", "def add(a, b):\n    return"),
        ("blank_only", " \n", ""),
        ("blank_only", "def add(a, b):\n    return", "def add(a, b):\n    return"),
        ("completion", "** return a", "** return a"),
        ("codestral_completion", "** return a", "return a"),
        ("completion", "return total_am", "return total_am"),
        ("fast_completion", "return total_am", "return "),
        ("fast_completion", "tota", "tota"),
        ("generation", "```python\nx\n```", "\nx\n"),
    ],
)
def test_each_kind_of_cleaning_does_its_own(cleaning: str, answer: str, wanted: str) -> None:
    assert clean(answer, at(ADD), cleaning, is_cut=True) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "answer", "wanted"),
    [
        ("a = 1\n", "b = 2\n", "b = 2\n"),
        ("a = 1", "b = 2\n", "\nb = 2\n"),
        ("a = 1", "\nb = 2\n", "\nb = 2\n"),
        ("a = 1\n", "```python\nb = 2\n```\n", "b = 2\n"),
        ("a = 1\n", "  \n\n", ""),
        ("a = 1", "", ""),
        ("a = 1\nb = 2\nc = 3\n", "a = 1\nb = 2\nc = 3\nd = 4\n", "d = 4\n"),
        ("\n", "a()\nb()\nc()\n" * 3 + "d()\n", "a()\nb()\nc()\nd()\n"),
    ],
)
def test_a_generation_is_cleaned(prefix: str, answer: str, wanted: str) -> None:
    assert clean_generation(answer, at(prefix)) == wanted


@pytest.mark.parametrize(
    ("text", "language", "wanted"),
    [
        ("", "python", False),
        ("  ", "python", False),
        ("# a", "python", True),
        ("# a\n\n  # b\n", "python", True),
        ("x # a", "python", False),
        ("// a\n/* b\n c */", "go", True),
        ("/* open", "go", True),
        ("/* a */ x", "go", False),
        ("# a", "go", False),
        ("#[Attribute]", "php", False),
        ("# a", "php", True),
        ("-- a", "sql", True),
        ("<!-- a -->", "html", True),
        ("{- a -}", "haskell", True),
        ("# a", "", False),
    ],
)
def test_comments_are_told_from_code(text: str, language: str, wanted: bool) -> None:
    assert is_only_comments(text, language) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("x", "x"),
        ("```", ""),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("  ```\nx\n  ```\ny", "x\ny"),
        ("a ``` b\n", "a ``` b\n"),
        ("``\n`\n", "``\n`\n"),
        ("x\n``", "x\n``"),
        ("x\x0c```\n\u2028```\n", "x\x0c```\n\u2028```\n"),
        ("```\r\nx\r\n```\r\n", "x\r\n"),
    ],
)
def test_fence_lines_are_removed(text: str, wanted: str) -> None:
    assert strip_fences(text) == wanted


def test_markdown_keeps_its_fences() -> None:
    assert strip_fences("```\nx\n```\n", "markdown") == "```\nx\n```\n"


def test_text_that_cannot_become_a_fence_is_not_held_back() -> None:
    stripper = FenceStripper()

    assert [stripper.feed(part) for part in ["de", "f", "\n", "  ", "x", "`", "``", "\n`", "`", "`py", "\n"]] == [
        *["de", "f", "\n", "", "  x", "`", "``", "\n", "", "", ""]
    ]
    assert stripper.close() == ""


PIECES = st.lists(
    st.sampled_from(["```", "`", "``", "\n", "\r\n", " ", "\t", "py", "é", "x = 1", "\u2028"]), max_size=25
)


@given(PIECES, st.data())
def test_any_split_of_an_answer_strips_the_same(pieces: Sequence[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    stripper = FenceStripper()

    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert "".join(stripper.feed(part) for part in parts) + stripper.close() == strip_fences(text)
    assert not any(line.lstrip(" \t").startswith("```") for line in strip_fences(text).split("\n"))


@given(st.lists(st.sampled_from(["<", "/", "e", "end>", "</end>", "x", "\n"]), max_size=25))
def test_any_split_of_an_answer_ends_at_the_same_stop_text(pieces: Sequence[str]) -> None:
    cutter = StopCutter(("", "</end>", "x\n"))
    text = "".join(pieces)
    places = [place for place in (text.find("</end>"), text.find("x\n")) if place >= 0]

    assert "".join(map(cutter.feed, pieces)) + cutter.close() == text[: min(places, default=len(text))]


LINES = st.lists(
    st.sampled_from(["x = 1", "    return a", "}", "{", "    ", "", "foo(a, b)", "def f():", "é = 'ü'", "# c"]),
    max_size=8,
).map("\n".join)
PRINTABLE = st.text(string.printable, max_size=60)


@settings(max_examples=150, deadline=None)
@given(LINES | PRINTABLE, LINES | PRINTABLE, LINES | PRINTABLE, st.sampled_from(["a.py", "a.go", "a.rb", "a.unknown"]))
@example('    "', '""Sum."""', "", "a.py")
def test_the_quality_rule_holds_for_any_answer(prefix: str, answer: str, suffix: str, file_name: str) -> None:
    text = clean_completion(answer, at(prefix, suffix, file_name))

    assert text == "" or text.strip()
    typed = prefix.rpartition("\n")[2].lstrip()
    begins_docstring = typed in ("'", '"') and text.startswith(2 * typed)
    assert not typed or begins_docstring or not text.startswith(typed)
    rest = suffix.partition("\n")[0].strip()
    if any(letter.isalnum() for letter in rest):
        assert not text.rstrip().endswith(suffix.partition("\n")[0].rstrip())


def test_a_tree_is_not_trusted_where_it_has_errors() -> None:
    assert end_of_block("func f() {\n\t", "return (1\n}\n\nfunc g() {}", "", "go") is None


def test_the_block_is_found_at_the_end_of_a_long_file() -> None:
    above = "def f():\n    return 'é'\n\n\n" * 5_000

    assert end_of_block(above + ADD, "return a\n\n\ny = 1", "", "python") == len("return a")


def test_letters_of_several_bytes_do_not_shift_the_block_end() -> None:
    assert end_of_block("def f():\n    ", "return 'äöü€𝄞'\n\n\nx = 1", "", "python") == len("return 'äöü€𝄞'")


@pytest.mark.parametrize(
    ("prefix", "text", "grammar", "wanted"),
    [
        ("if x {\n", "a\n}\nb", "go", 3),
        ("if x {\n", "a\n}", "go", None),
        ("if x {\n", "y := '}'\n", "go", None),
        ("if x {\n", "if y {\n}\n", "go", None),
        ("f(func() {\n", "a\n})\nb", "go", 4),
        ("func() {\n", "a\n}()\nb", "go", 5),
        ("$self->{na", "me} = 1;\nreturn;\n}\n\nsub g {}", "perl", 18),
        ("%x = (a => {\n", "b => 1 }, c => 2);\n", "perl", None),
        ("$x = {", "} // 1;\n", "perl", None),
        ("def f():\n    ", "a\n    b\nc", "python", 8),
        ("def f():\n    ", "a\n\n    b", "python", None),
        ("x = ", "a\nb", "python", None),
    ],
)
def test_without_grammars_brackets_and_indentation_tell_the_block_end(
    prefix: str, text: str, grammar: str, wanted: int | None
) -> None:
    assert _end_of_block_lexically(prefix, text, grammar) == wanted


def test_without_a_grammar_open_brackets_are_the_errors() -> None:
    assert adds_errors("", "f(x)", "f(x", "", "")
    assert not adds_errors("", "x)", "x", "", "")
    assert open_brackets("f(')', [") == 2
    assert open_brackets('say("it\'s")[') == 1
    assert open_brackets('say "it\'s" ("it\'s"') == 1


def test_a_repetition_of_the_whole_answer_leaves_nothing() -> None:
    assert drop_repeated_end("x)", "f(", "x)\n", "python") == ""
    assert drop_repeated_start("def f():", "def f():") == ""


@pytest.mark.parametrize(
    ("prefix", "answer", "wanted"),
    [
        ("import os", "\nimport os\nimport sys\n", "\nimport sys\n"),
        ("import os", "\r\nimport os\r\nimport sys", "\nimport sys"),
        ("import os", "\n  import os", ""),
        ("    pass  ", "pass", ""),
        ("if ", "iffy", "iffy"),
        ("x = 1", "\nx = 10", "\nx = 10"),
        ("}", "\n}", "\n}"),
    ],
)
def test_the_cursors_line_does_not_come_again(prefix: str, answer: str, wanted: str) -> None:
    assert drop_repeated_start(answer, prefix) == wanted


@pytest.mark.parametrize(
    ("prefix", "answer", "wanted"),
    [
        # As far as they are the same, and whatever stands before them.
        ("a = 1\nb = 2\nc = 3\nd = 4\n\n", "a = 1\nb = 2\nc = 3\ne = 5\n", "e = 5\n"),
        ("a = 1\nb = 2\nc = 3\nprint(", "a)\na = 1\nb = 2\nc = 3\nprint(b)\n", "a)\nprint(b)\n"),
        # Too few in a row, and those of another block.
        ("a = 1\nb = 2\nc = 3\nd = 4\n\n", "a = 1\nb = 2\ne = 5\nd = 4\n", "a = 1\nb = 2\ne = 5\nd = 4\n"),
        (
            "def f():\n  a = 1\n  b = 2\n  c = 3\n\ndef g",
            "():\n  a = 1\n  b = 2\n  c = 3",
            "():\n  a = 1\n  b = 2\n  c = 3",
        ),
    ],
)
def test_lines_from_above_go_where_they_come_again_as_a_block(prefix: str, answer: str, wanted: str) -> None:
    assert drop_repeated_blocks(answer, prefix) == wanted


def test_few_lines_from_above_may_come_again() -> None:
    assert drop_repeated_blocks("a = 1\nb = 2\n", "a = 1\nb = 2\n") == "a = 1\nb = 2\n"
    assert drop_repeated_blocks("}\n}\n}\n}\n", "}\n}\n}\n}\n") == "}\n}\n}\n}\n"


def test_short_loops_and_closers_stay() -> None:
    assert drop_loops("x\nx\nx\n") == "x\nx\nx\n"
    assert drop_loops("}\n" * 12) == "}\n" * 12


def test_blanks_before_an_answer_are_not_held_back_for_ever() -> None:
    cutter = StartCutter(("</new_code>",))

    passed = [cutter.feed(" ") for _ in range(3_000)]

    assert "".join(passed) == " " * 3_000
