import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from torana.chat import FillIn
from torana.providers.demo.cursor import count_strays, open_brackets
from torana.providers.demo.languages import NAMES, find_language, guess_language, read_language
from torana.providers.demo.ngram import complete
from torana.providers.demo.tidy import first_line, last_line, tidy


def first(prefix: str, suffix: str = "", file_name: str = "", context: str = "") -> str:
    found = complete(FillIn(prefix=prefix, suffix=suffix, file_name=file_name, context=context))
    return found[0] if found else ""


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_language_file_is_readable(name: str) -> None:
    language = read_language(name)

    assert (language.sample and language.keywords) or name == "text"


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("prefix", ["def hello_world", "x = 1\ndef hello_world", "  def hello_world"])
def test_hello_world_is_completed_whatever_the_language(name: str, prefix: str) -> None:
    assert complete(FillIn(prefix=prefix, language=name))[0].strip()


@pytest.mark.parametrize("file_name", ["", "test.rb", "noextension", "a.unknown", "README.md", "x.html"])
def test_hello_world_is_completed_whatever_the_file(file_name: str) -> None:
    assert "Hello, world!" in first("def hello_world", file_name=file_name)


@pytest.mark.parametrize(
    ("file_name", "prefix", "expected"),
    [
        ("a.py", "def add(", "a, b):\n    return a + b\n"),
        ("a.py", "def add(a, b):\n", "    return a + b\n"),
        ("a.py", "def add(a, b):\n    ", "return a + b\n"),
        ("a.py", "class Box:\n    def size", '(self):\n        print("size")\n'),
        ("a.py", "class A:\n    def __init__(self, name):", "\n        self.name = name\n"),
        ("a.py", "def show(items):\n\t", "for item in items:\n\t\tprint(item)\n"),
        ("a.rb", "def add(a, b)", "\n  a + b\nend\n"),
        ("a.js", "function add(a, b) {", "\n  return a + b;\n}\n"),
        ("a.ts", "function isEven(n: number): boolean {\n", "  return n % 2 == 0;\n}\n"),
        ("a.go", "func Add(a int, b int) int {\n", "\treturn a + b\n}\n"),
        ("A.java", "    public int add(int a, int b) {\n", "        return a + b;\n    }\n"),
        ("a.rs", "fn add(a: i64, b: i64) -> i64", " {\n    a + b\n}\n"),
        ("a.c", "int main(", ') {\n    printf("Hello, world!\\n");\n    return 0;\n}\n'),
        ("a.cpp", "int add(int a, int b) {\n", "    return a + b;\n}\n"),
        ("a.php", "function add($a, $b) {\n", "    return $a + $b;\n}\n"),
        ("a.kt", "fun main() {", '\n    println("Hello, world!")\n}\n'),
        ("a.swift", "func add(a: Int, b: Int) -> Int {\n", "    return a + b\n}\n"),
        ("a.cs", "public static int Add(int a, int b) {\n", "    return a + b;\n}\n"),
        ("a.sh", "hello() {\n", '  echo "Hello, world!"\n}\n'),
    ],
)
def test_a_declaration_gets_its_body_in_the_manner_of_the_language(file_name: str, prefix: str, expected: str) -> None:
    assert first(prefix, file_name=file_name) == expected


@pytest.mark.parametrize(
    ("file_name", "prefix", "suffix", "expected"),
    [
        ("a.py", "for i in range(", "", "len(items)):\n    print(items[i])"),
        ("a.py", "for i in range(", ")", "len(items)"),
        ("a.py", "def add(", "):\n    pass\n", "a, b"),
        ("a.js", "function add(a, b) {\n  ", "\n}\n", "return a + b;\n"),
        ("a.js", "items.map(", "", "(item) => item.name);"),
        ("a.js", "items.forEach(", "", "(item) => {\n  console.log(item);\n});"),
        ("a.go", "result, err := run()\nif err", "", " != nil {\n\treturn nil, err\n}"),
        ("a.js", "if (a) {\n  return 1;\n", "", "}"),
        ("a.py", "x = foo(bar[1", "", "])"),
    ],
)
def test_brackets_are_closed_once(file_name: str, prefix: str, suffix: str, expected: str) -> None:
    assert first(prefix, suffix, file_name) == expected


@pytest.mark.parametrize("unit", ["  ", "    ", "\t"])
def test_the_indentation_of_the_file_is_kept(unit: str) -> None:
    prefix = f"def first():\n{unit}return 1\n\n\ndef add(a, b):\n"

    assert first(prefix, file_name="a.py") == f"{unit}return a + b\n"


def test_a_line_after_return_stands_one_level_less_deep() -> None:
    text = first("def f(x):\n    if x:\n        return 1\n", file_name="a.py")

    assert text.startswith("    ")
    assert not text.startswith("     ")


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (
            "class A:\n    def __init__(self):\n        self.name = 1\n\n    def show(self):\n        print(self.na",
            "me",
        ),
        ("total_count = 1\nprint(tot", "al_count"),
        ("import j", "son"),
    ],
)
def test_a_begun_name_is_finished(prefix: str, expected: str) -> None:
    assert first(prefix, file_name="a.py").startswith(expected)


@pytest.mark.parametrize(
    ("file_name", "prefix", "suffix", "expected"),
    [
        ("a.css", ".a {\n  color: red;\n  margin: 0;\n}\n\n.b {\n  ", "\n}\n", "color: red;"),
        ("a.css", ".a {\n  color: red;\n  margin: 0;\n}\n\n.b {\n  color: red;\n  ", "\n}\n", "margin: 0;"),
        ("a.yml", "services:\n  web:\n    image: nginx\n    ports:\n      - 80\n  db:\n    ", "", "image: nginx"),
        ("a.tf", 'resource "a" "b" {\n  name = "x"\n}\n\nresource "a" "c" {\n  ', "\n}\n", 'name = "x"'),
        ("a.html", "<ul>\n  <li>One</li>\n  ", "\n</ul>\n", "<li></li>"),
        ("a.html", "<body>\n  <p>Hello", "", "</p>"),
        ("a.html", "<body>\n  <table>\n    ", "", "<tr></tr>"),
        ("a.html", "<body>\n  <p>Hello</", "", "p>"),
    ],
)
def test_entries_resemble_those_beside_them(file_name: str, prefix: str, suffix: str, expected: str) -> None:
    assert first(prefix, suffix, file_name) == expected


def test_languages_without_a_sample_learn_from_the_file_alone() -> None:
    prefix = "FROM debian:12\nRUN apt-get update\nRUN apt-get upgrade\nRUN "

    found = complete(FillIn(prefix=prefix, file_name="Dockerfile", language="dockerfile"))

    assert found[0] == "apt-get upgrade"
    assert complete(FillIn(prefix="FROM ", file_name="Dockerfile", language="dockerfile")) == []


@pytest.mark.parametrize("prefix", ["Dear all,\n\nHello ", "It is one"])
def test_prose_is_not_completed_with_code(prefix: str) -> None:
    assert first(prefix, file_name="letter.txt") == ""


@pytest.mark.parametrize(
    ("file_name", "prefix", "expected"),
    [
        ("a.py", "for i in range(10):\n    print(", "i)"),
        ("a.sh", "for file in *.txt; do\n  ", 'echo "$file"'),
        ("a.kt", "fun describe(user: User): String {\n    return ", "user.toString()"),
        ("a.cpp", "int f(std::vector<int> values) {\n    for (int value : values) {\n        ", "std::cout << value"),
        ("a.sql", "CREATE TABLE users (id INT, name TEXT);\n\nSELECT ", "id, name FROM users"),
        ("a.py", "class A:\n    def remove(self, item):\n        self.items.rem", "ove"),
        ("a.js", "function sum(a, b) {\n  ", "return a + b;"),
    ],
)
def test_only_names_of_the_file_are_used(file_name: str, prefix: str, expected: str) -> None:
    assert first(prefix, file_name=file_name).startswith(expected)


@pytest.mark.parametrize(
    ("file_name", "prefix", "expected"),
    [
        ("A.java", "class A {\n    private int count;\n\n    public int getCount() {\n        ", "return this.count;"),
        (
            "A.java",
            "class A {\n    private int count;\n\n    public void setCount(int n) {\n        ",
            "this.count = n;",
        ),
        (
            "a.php",
            "<?php\nclass A {\n    private $name;\n    public function getName() {\n        ",
            "return $this->name;",
        ),
        ("a.rb", "def initialize(name, email)\n  @name = name\n  @", "email = email"),
        ("a.py", "class A:\n    def __init__(self, name, age):\n        self.name = name\n        ", "self.age = age"),
        ("a.js", "class A {\n  constructor(name, age) {\n    this.", "name = name;"),
        ("a.rs", "impl P {\n    fn new(x: f64, y: f64) -> Self {\n        ", "Self { x, y }"),
    ],
)
def test_methods_keep_and_hand_out_their_fields(file_name: str, prefix: str, expected: str) -> None:
    assert first(prefix, file_name=file_name).startswith(expected)


def test_names_of_attached_files_are_known() -> None:
    assert first("print(unus", file_name="a.py", context="unusual_name = 1\n").startswith("ual_name")


def test_the_file_itself_teaches_what_follows() -> None:
    prefix = "log.info(request_id, path)\nvalue = 2\nlog.info("

    assert first(prefix, file_name="a.py") == "request_id, path)"


def test_a_comment_that_asks_for_a_function_gets_it() -> None:
    assert first("# multiply two numbers\n", file_name="a.py") == "def multiply(a, b):\n    return a * b\n"


def test_choices_are_different() -> None:
    found = complete(FillIn(prefix="for i in range(", file_name="a.py"), 3)

    assert len(found) == len(set(found)) == 3


@pytest.mark.parametrize("prefix", ["", " ", "\n\n", "\t\n"])
def test_blank_code_is_left_alone(prefix: str) -> None:
    assert complete(FillIn(prefix=prefix, file_name="a.py")) == []


@pytest.mark.parametrize(
    "prefix", ["x", "foo", "return ", "}", ")", "import ", "日本 = ", "class Foo", "# note", "a.b", "5"]
)
@pytest.mark.parametrize("name", ["python", "ruby", "javascript", "go", "bash", "yaml"])
def test_nearly_any_code_is_completed(name: str, prefix: str) -> None:
    assert complete(FillIn(prefix=prefix, language=name))


@pytest.mark.parametrize(
    ("language", "file_name", "code", "expected"),
    [
        ("python", "x.rb", "", "python"),
        ("typescriptreact", "", "", "typescript"),
        ("", "a.KT", "", "kotlin"),
        ("", "", "package main\n", "go"),
        ("", "", "def f\n  1\nend\n", "ruby"),
        ("", "", "", "python"),
        ("brainfuck", "x.bf", "+", "python"),
    ],
)
def test_the_language_is_found_by_name_file_or_signs(language: str, file_name: str, code: str, expected: str) -> None:
    assert find_language(language, file_name, code) == expected


def test_prose_has_no_language() -> None:
    assert guess_language("What is a merge request?") == ""


@pytest.mark.parametrize(
    ("text", "before", "after", "expected"),
    [
        ("x = 1\ny", "x = 1", "", ""),
        ("  x = 1", "x = 1\n", "", ""),
        ("y\n}", "if (x) {", "}", "y\n"),
        ("y\n)\n)", "f(", "  )  \n", "y\n"),
        ("y {\n  z\n}", "if ", "\n}\n", "y {"),
        ("", "", "", ""),
        ("y", "", "", "y"),
    ],
)
def test_repetitions_of_the_neighbouring_lines_are_removed(text: str, before: str, after: str, expected: str) -> None:
    assert tidy(text, before, after) == expected


SNIPPET = st.lists(
    st.sampled_from(
        [
            "def ",
            "f",
            "(",
            ")",
            "{",
            "}",
            "[",
            "]",
            "\n",
            "    ",
            "\t",
            ":",
            "=",
            '"',
            "'",
            "class ",
            "x",
            "if ",
            "#",
            ",",
            "é",
        ]
    ),
    max_size=40,
).map("".join)
PRINTABLE = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), include_characters="\n\t\0"), max_size=120
)


@settings(max_examples=150, deadline=None)
@given(SNIPPET | PRINTABLE, SNIPPET | PRINTABLE, st.sampled_from(sorted(NAMES)))
def test_any_code_is_completed_within_the_quality_rule(prefix: str, suffix: str, language: str) -> None:
    fill_in = FillIn(prefix=prefix, suffix=suffix, language=language)

    found = complete(fill_in, 4)

    assert found == complete(fill_in, 4)
    for text in found:
        above, below = last_line(prefix), first_line(suffix)
        assert text.strip()
        assert len(text) < 2_000
        assert not (above and text.strip().startswith(above))
        # A bracket is no repetition where its own line has opened it.
        closes_its_own = not re.search(r"\w", below) and last_line(text) != below
        assert not (below and text.strip().endswith(below)) or closes_its_own
        assert text.count("\n") <= 16


@settings(max_examples=80, deadline=None)
@given(SNIPPET, st.sampled_from(["python", "javascript", "go", "ruby"]))
@example("def def ({", "python")
def test_a_line_closes_only_what_is_open(prefix: str, language: str) -> None:
    line = prefix.rsplit("\n", 1)[-1]
    before = line if line.strip() else prefix

    for text in complete(FillIn(prefix=prefix, language=language), 2):
        assert count_strays(before + text.split("\n", 1)[0]) <= count_strays(before)


@pytest.mark.parametrize(
    ("code", "waiting", "quote", "strays"),
    [
        ("", [], "", 0),
        ("f(a[1", [")", "]"], "", 0),
        ("f(')'", [")"], "", 0),
        ('x = "a\\"(', [], '"', 0),
        ("it's\n(", [")"], "", 0),
        ("a)]", [], "", 2),
    ],
)
def test_brackets_are_counted_outside_of_quotations(code: str, waiting: list[str], quote: str, strays: int) -> None:
    assert open_brackets(code) == (waiting, quote)
    assert count_strays(code) == strays


@pytest.mark.parametrize(
    "prefix",
    [
        "(" * 100_000, "x " * 50_000, "\n" * 100_000 + "x", "'" * 100_000, "{\n" * 50_000, "a" * 100_000,
        "\0", "a\0b\0", "\0\0", "<a " + "x" * 100_000,
        "x" + " " * 100_000,
    ],
)  # fmt: skip
def test_degenerate_files_are_no_trouble(prefix: str) -> None:
    for language in ("python", "html"):
        complete(FillIn(prefix=prefix, suffix=prefix, context=prefix, language=language))
