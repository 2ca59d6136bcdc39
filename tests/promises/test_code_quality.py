"""What an editor would show: answers as models write them, around cursors as they stand (contract 6.7)."""

import pytest
from tests.promises.test_code_v2 import body, text_of
from tests.support.gateway import RunningGateway

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
    ("file_name", "above", "answered"),
    [
        ("a.md", "An example:\n\n", "```python\nx = 1\n```"),
        ("a.py", 'def f():\n    """An example:\n\n    ', "```python\n    f()\n    ```"),
        ("a.rs", "/// An example:\n/// ", "```\n/// f();\n/// ```"),
        ("a.py", "def f():\n    ", '"""An example:\n\n    ```\n    f()\n    ```\n    """'),
    ],
)
async def test_fences_that_belong_to_the_text_stay(
    shared: RunningGateway, file_name: str, above: str, answered: str
) -> None:
    shared.provider.answer_with(text=answered)

    assert await text_of(shared, body(above, file_name=file_name)) == answered
