"""What an editor would show: answers as models write them, around cursors as they stand (contract 6.7)."""

import pytest
from tests.promises.test_code_v2 import GENERATIONS, ask, body, text_of
from tests.support.gateway import RunningGateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIRST_TEST = """\
def test_a():
    user = create_user()
    client.login(user)
    page = client.get("/").parse()
    assert page.status == 200

"""
SECOND_TEST = FIRST_TEST.replace("test_a", "test_b").replace("200", "404")
FIRST_ROUTE = """\
app.get("/a", async (request, answer) => {
  const user = await load(request);
  if (!user) {
    return answer.status(401).send();
  }
  answer.json(user);
});

"""
SECOND_ROUTE = FIRST_ROUTE.replace('"/a"', '"/b"')


@pytest.mark.parametrize(
    ("file_name", "above", "below", "answered"),
    [
        ("a.rb", 'puts "Hello ', "\n", '#{name}!"'),
        ("a.rb", 'puts "Hello ', '"\n', "#{name}"),
        ("a.rb", "text = <<~END\n  Hello ", "END\n", "#{name}\n"),
        ("a.ex", 'IO.puts("x ', "\n", '#{y}")'),
        ("a.js", 'const page = fetch("https:', "\n", '//example.com/users");'),
        ("a.js", "const page = `\nhttps:", "\n", "//example.com/users`;"),
        ("a.py", 'color = "', "\n", '#ff0000"'),
        ("a.yml", 'color: "', "\n", '#fff"'),
        ("a.sh", "if [ $", "\n", "# -lt 2 ]; then"),
        ("a.sh", "count=${", "\n", "#names[@]}"),
    ],
)
async def test_what_only_looks_like_a_comment_is_offered(
    shared: RunningGateway, file_name: str, above: str, below: str, answered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above, below, file_name)) == answered


@pytest.mark.parametrize(
    ("file_name", "above", "answered"),
    [
        ("a.rb", "x = 1\n", "# nothing to see"),
        ("a.js", "f();\n", "// nothing\n/* to see */"),
        ("a.py", 'x = "#"\n', "# nothing"),
        ("a.py", "x = 1", "  # nothing"),
    ],
)
async def test_an_answer_of_comments_alone_is_none(
    shared: RunningGateway, file_name: str, above: str, answered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above, file_name=file_name)) == ""


@pytest.mark.parametrize(
    "answered",
    [
        "```python\nreturn a + b\n```",
        "```\nreturn a + b\n```\n",
        "```py\r\nreturn a + b\r\n```",
        "```python\nreturn a + b",
        "    ```python\n    return a + b\n    ```",
        "Here is the code:\n\n```python\nreturn a + b\n```\n\nIt adds `a` and `b`.",
    ],
)
async def test_a_completion_between_fences_is_taken_out_of_them(shared: RunningGateway, answered: str) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body()) == "return a + b"


@pytest.mark.parametrize(
    ("file_name", "above", "code"),
    [("a.c", "#inc", "lude <stdio.h>"), ("a.c", "  *x ", "= 1;"), ("a.css", "#a", "b { c: d }"), ("a.ts", "--", "i;")],
)
async def test_what_only_begins_like_a_comment_takes_code_between_fences(
    shared: RunningGateway, file_name: str, above: str, code: str
) -> None:
    shared.provider.answer_with(text=f"```\n{code}\n```")

    assert await text_of(shared, body(above, file_name=file_name)) == code


@pytest.mark.parametrize(
    ("file_name", "above", "answered"),
    [
        ("a.md", "An example:\n\n", "```python\nx = 1\n```"),
        ("a.py", 'def f():\n    """An example:\n\n    ', "```python\n    f()\n    ```"),
        ("a.rs", "/// An example:\n/// ", "```\n/// f();\n/// ```"),
        ("a.js", "/**\n * An example:\n * ", "```\n * f();\n * ```"),
        ("a.py", "def f():\n    ", '"""An example:\n\n    ```\n    f()\n    ```\n    """'),
    ],
)
async def test_fences_that_belong_to_the_text_stay(
    shared: RunningGateway, file_name: str, above: str, answered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above, file_name=file_name)) == answered


@pytest.mark.parametrize(
    ("above", "answered", "offered"),
    [
        ("import os\n\ndef add(a, b):\n    return ", "def add(a, b):\n    return a + b", "a + b"),
        ("import os\n\ndef add(a, b):\n    ", "import os\n\ndef add(a, b):\n    return a + b", "return a + b"),
        ("x = 1\r\ndef add(a, b):\r\n    return ", "def add(a, b):\n    return a + b", "a + b"),
        ("import nu", "numpy as np", "mpy as np"),
        ("total = pri", "price * count", "ce * count"),
        ("naïve = naï", "naïveté", "veté"),
    ],
)
async def test_an_answer_that_begins_further_back_is_cut_to_the_cursor(
    shared: RunningGateway, above: str, answered: str, offered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above)) == offered


@pytest.mark.parametrize(
    ("above", "answered"),
    [("x = a", "and b"), ('x = "#ff', 'ff00"'), ("x = 11", "11"), ("x = value ", "value")],
)
async def test_what_only_looks_like_the_begun_word_stays(shared: RunningGateway, above: str, answered: str) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above)) == answered


@pytest.mark.parametrize(
    ("file_name", "above", "below", "answered", "offered"),
    [
        ("a.js", "foo(", ")", "a, b);", "a, b"),
        ("a.js", "foo(", ");", "bar(a));", "bar(a)"),
        ("a.js", "foo(bar(", "))", "a));\nb();\n", "a"),
        ("a.js", "each(", ")", "(x) => {\n  print(x);\n});", "(x) => {\n  print(x);\n}"),
        ("a.js", "if (", ")", "a > b) {\n  c();\n}", "a > b"),
        ("a.js", "} else if (", ") {", "a) {\n  b();", "a"),
        ("a.js", "const {", "} = x;", "a, b} = x;", "a, b"),
        ("a.js", 'print("', '")', 'hello");', "hello"),
        ("a.js", 'print("', '");', 'a" + b + "c");', 'a" + b + "c'),
        ("a.js", "x = {a: '", "'}", "b', c: ['d'],", "b"),
        ("a.py", "def f(", "):", "a, b):\n    return a + b", "a, b"),
        ("a.py", "def f(", ")", "a):\n    return g(a)", "a):\n    return g(a"),
        ("a.py", "x = [", "]", "1]\ny = [2]", "1]\ny = [2"),
        ("a.tsx", "<A b={", "} />", "c} />", "c"),
    ],
)
async def test_what_the_editor_has_closed_is_not_closed_again(
    shared: RunningGateway, file_name: str, above: str, below: str, answered: str, offered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above, f"{below}\n", file_name)) == offered


@pytest.mark.parametrize(
    ("file_name", "above", "below", "answered", "offered"),
    [
        ("a.go", "type A struct {\n\t", "\n}", "B int\n}\n\ntype C int\n", "B int"),
        ("a.go", "type A struct {", "\n}", "\n\tB int\n}\n\ntype C int\n", "\n\tB int"),
        ("a.rs", "enum A {\n    ", "\n}", "B,\n}\n\nstruct C;", "B,"),
        ("a.ts", "type A = {\n  ", "\n};", "b: string;\n};\n\nfoo();", "b: string;"),
        ("a.js", "f({\n  a: [\n    ", "\n  ],\n});", "1,\n  ],\n  b: [\n    2,\n  ],", "1,"),
        ("a.py", "a = [\n    ", "\n]", "1,\n]\n\nb = 2", "1,"),
        ("a.sh", "if a; then\n  ", "\nfi", "b\nfi\n\nc\n", "b"),
        ("a.lua", "while a do\n  ", "\nend", "b()\nend\n\nc()", "b()"),
        ("a.html", "<ul>\n  ", "\n</ul>", "<li></li>\n</ul>\n<p></p>", "<li></li>"),
        ("a.unknown", "a {\r\n  ", "\r\n}", "b\r\n}\r\nc", "b"),
        ("a.js", "function f() {\n  if (a) {\n    ", "\n}", "b();\n  }", "b();\n  }"),
        ("a.js", "f(a, {\n  ", "\n}, b)", "c: {\n    d,\n  },", "c: {\n    d,\n  },"),
        ("a.rb", "def f\n  ", "\nend", "if a\n    b\n  end", "if a\n    b\n  end"),
    ],
)
async def test_a_block_that_is_closed_below_is_not_closed_again(
    shared: RunningGateway, file_name: str, above: str, below: str, answered: str, offered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above, f"{below}\n", file_name)) == offered


@pytest.mark.parametrize("below", ["\n  }\n}\n", "\n  }\n  return x\n}\n", f"\n  }}\n{FIRST_ROUTE * 9}"])
async def test_braces_stay_in_a_file_that_does_not_parse(shared: RunningGateway, below: str) -> None:
    answered = "try {\n      a()\n    } catch (err) {\n      if (b) {\n        c()\n      }\n    }"
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body("foo(\n  if (a) {\n    ", below, "a.js")) == answered


@pytest.mark.parametrize(
    ("file_name", "above", "answered", "offered"),
    [
        ("a.c", "struct a {\n    ", "int x;\n};\n\nint y;\n", "int x;\n};"),
        ("a.lua", "function a()\n  ", "b()\nend\n\nc()\n", "b()\nend"),
        ("a.tf", "locals {\n  ", "a = 1\n}\n\nterraform {}\n", "a = 1\n}"),
        ("a.cs", "enum A {\n    ", "B,\n}\n\nclass C {}\n", "B,\n}"),
    ],
)
async def test_a_block_is_trimmed_to_its_end_and_no_further(
    shared: RunningGateway, file_name: str, above: str, answered: str, offered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above, "", file_name)) == offered


@pytest.mark.parametrize(
    ("file_name", "above", "below", "answered"),
    [
        ("a.js", "foo(", ")", "bar(a)"),
        ("a.js", "foo(bar(a", ")", ", b)"),
        ("a.js", "foo(", ")", "a) + bar(b"),
        ("a.js", "foo(", ")", "'(', ')'"),
        ("a.js", "foo(", ")", "function () {"),
        ("a.js", "foo(a, [", "])", "1], [2"),
        ("a.js", 'x = "', '"', 'a" + b + "c'),
        ("a.js", 'x = "', '"', 'a \\"b\\"'),
        ("a.js", "foo(", "\n)", "a)"),
    ],
)
async def test_a_bracket_that_is_needed_as_well_stays(
    shared: RunningGateway, file_name: str, above: str, below: str, answered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above, f"{below}\n", file_name)) == answered


@pytest.mark.parametrize("path", ["/v2/code/completions", GENERATIONS])
@pytest.mark.parametrize(
    ("file_name", "above", "answered"),
    [
        ("test_a.py", FIRST_TEST, SECOND_TEST),
        ("a.js", FIRST_ROUTE, SECOND_ROUTE),
        (".gitlab-ci.yml", *(f"{name}:\n  stage: test\n  image: ruby\n  script: rake\n" for name in ("one", "two"))),
    ],
)
async def test_a_new_block_may_say_what_another_says(
    shared: RunningGateway, path: str, file_name: str, above: str, answered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above, file_name=file_name), path) == answered


async def test_the_body_of_a_new_block_may_say_what_another_says(shared: RunningGateway) -> None:
    head, _, rest = SECOND_TEST.rstrip().partition("\n    ")
    shared.provider.answer_with(text=rest)

    assert await text_of(shared, body(f"{FIRST_TEST}{head}\n    ")) == rest


@pytest.mark.parametrize("path", ["/v2/code/completions", GENERATIONS])
async def test_a_block_that_is_there_already_does_not_come_again(shared: RunningGateway, path: str) -> None:
    shared.provider.answer_with(text=f"x = 1\n{FIRST_TEST}y = 2\n")

    assert await text_of(shared, body(FIRST_TEST), path) == "x = 1\ny = 2\n"


async def test_the_statements_above_do_not_come_again(shared: RunningGateway) -> None:
    shared.provider.answer_with(text="a = load()\n    b = parse(a)\n    c = save(b)\n    return c")

    text = await text_of(shared, body("def f():\n    a = load()\n    b = parse(a)\n    c = save(b)\n    "))

    assert text.strip() == "return c"


@pytest.mark.parametrize("answered", ["<new_code>\nx = 1\n</new_code>", "\n<new_code>x = 1\n", "<new_code>\r\nx = 1\n"])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_tag_that_the_stop_text_closes_is_no_code(
    shared: RunningGateway, answered: str, stream: bool
) -> None:
    shared.provider.answer_with(pieces=list(answered))

    answer = await ask(shared, body("# set x\n", stream=stream), GENERATIONS)

    assert (answer.text if stream else answer.json()["choices"][0]["text"]) == "x = 1\n"


async def test_what_only_begins_like_the_tag_stays(shared: RunningGateway) -> None:
    shared.provider.answer_with(pieces=["<", "ne", "w"])

    assert (await ask(shared, body("# tag\n", file_name="a.html", stream=True), GENERATIONS)).text == "<new"


@pytest.mark.parametrize("above", ["$x =~ s#a", "$x =~ s#a#", "my $re = qr#a", "$x =~ tr#a"])
async def test_perl_whose_last_delimiter_is_open_is_answered(shared: RunningGateway, above: str) -> None:
    shared.provider.answer_with(text="b")

    assert await text_of(shared, body(above, file_name="a.pl")) == "b"


@pytest.mark.parametrize(
    ("above", "name"), [("1. " * 1300, "a.md"), ("? " * 1900, "a.yml"), ('/"""${%q[' * 400, "a.kt")]
)
async def test_code_that_a_grammar_ended_the_process_for_is_answered(
    shared: RunningGateway, above: str, name: str
) -> None:
    shared.provider.answer_with(text=above[:9] * 880)

    assert (await ask(shared, body(above, file_name=name))).status == 200
