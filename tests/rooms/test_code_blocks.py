"""Whether a block may end within an answer is told from its lines; the tree must never know better."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torana.code.syntax import end_in_tree, end_of_block

HEADS = [
    "def add(first, second):",
    "class Sum:",
    "for row in rows:",
    "with open(x) as file:",
    "def long(\n    one,\n) -> int:",
]
SIMPLE = ["return first", "x = 1", "x = [\n    1,\n]", "print('a', 'b')", "pass", "call(\n    one,\n  two)"]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else line for line in text.split("\n"))


@st.composite
def python_code(draw: st.DrawFn, depth: int = 0) -> str:
    """Statements that parse, some with a body of their own."""
    found = []
    for _ in range(draw(st.integers(1, 4 - depth))):
        if depth < 3 and draw(st.booleans()):
            found.append(f"{draw(st.sampled_from(HEADS))}\n{_indented(draw(python_code(depth + 1)))}")
            if draw(st.booleans()):
                found.append(f"if x:\n    pass\nelse:\n{_indented(draw(python_code(depth + 1)))}")
        else:
            found.append(draw(st.sampled_from(SIMPLE)))
    return draw(st.sampled_from(["\n", "\n\n"])).join(found)


BRACES = {
    "javascript": """
function add(a, b) {
  return a + b;
}
class Sum {
  total() {
  }

if (x) {
} else {
const f = () => {
};
let x = 1;
""".splitlines()[1:],
    "rust": """
fn add(a: i32) -> i32 {
    a + 1
}
impl Sum {
    fn total(&self) -> i32 {
    }

match x {
    Some(y) => y,
let x = 1;
""".splitlines()[1:],
    "c": """
int add(int a, int b) {
  return a + b;
}
struct sum {
  int rows;
};
int f(int a);

if (x) {
} else {
x = 1;
""".splitlines()[1:],
    "typescript": """
function add(a: number): number {
  return a;
}
interface Sum {
  total(): number;
}
function f(a: string): void;

const x = 1;
""".splitlines()[1:],
}


def _trims(prefix: str, text: str, end: int | None) -> bool:
    """White space behind a block costs nothing, so an end before it is no end."""
    return end is not None and bool(text[end:].strip())


@given(python_code(), st.integers(0, 2_000))
def test_no_python_block_ends_where_the_lines_say_that_none_does(source: str, cut: int) -> None:
    prefix, text = source[: cut % (len(source) + 1)], source[cut % (len(source) + 1) :]

    quick = end_of_block(prefix, text, "", "python")

    assert _trims(prefix, text, quick) == _trims(prefix, text, end_in_tree(prefix, text, "", "python"))


@pytest.mark.parametrize("grammar", sorted(BRACES))
@given(data=st.data())
def test_no_braced_block_ends_where_the_lines_say_that_none_does(grammar: str, data: st.DataObject) -> None:
    source = "\n".join(data.draw(st.lists(st.sampled_from(BRACES[grammar]), min_size=1, max_size=12)))
    cut = data.draw(st.integers(0, len(source)))
    prefix, text = source[:cut], source[cut:]

    quick = end_of_block(prefix, text, "", grammar)

    assert _trims(prefix, text, quick) == _trims(prefix, text, end_in_tree(prefix, text, "", grammar))


def test_a_go_function_whose_body_has_only_begun_keeps_its_brace() -> None:
    # To the grammar a function without a body is whole, and the brace behind it a stray one.
    assert end_of_block("f", "unc add(a int, b int) int {", "", "go") is None
