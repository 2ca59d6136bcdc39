"""Code room: languages, windows, fill-in-the-middle formats, token estimates (contract 6.5, 10.4)."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from torana.catalog.model_records import FamilyRecord
from torana.chat import ModelWish
from torana.code.fill_in import FORMATS, mark_cursor
from torana.code.languages import grammar_name, guess_language
from torana.code.orders import Attachment, Cursor, GenerationOrder
from torana.code.window import fit, keep_end, keep_start
from torana.counting import bytes_of, count_bytes, estimate_tokens


@pytest.mark.parametrize(
    ("file_name", "editor", "wanted"),
    [
        ("app.py", "", "python"),
        ("APP.PY", "", "python"),
        ("src/deep.dir/app.go", "", "go"),
        (r"src\app.rb", "", "ruby"),
        ("app.py", "Go", "python"),
        ("app", "Go", "go"),
        ("", "C++", "cpp"),
        ("", "csharp", "csharp"),
        ("", "typescriptreact", "typescript"),
        ("", "shellscript", "bash"),
        ("x.tsx", "", "typescript"),
        ("x.xyz", "javascriptreact", "javascript"),
        ("Dockerfile", "", "dockerfile"),
        ("Dockerfile.dev", "", "dockerfile"),
        ("CMakeLists.txt", "", "cmake"),
        ("Makefile", "", "make"),
        ("notes.txt", "plaintext", ""),
        ("", "", ""),
        (".", ".", ""),
    ],
)
def test_the_file_name_tells_the_language_then_the_editor(file_name: str, editor: str, wanted: str) -> None:
    assert guess_language(file_name, editor) == wanted


def test_grammars_are_finer_than_languages() -> None:
    assert (grammar_name("x.tsx"), guess_language("x.tsx")) == ("tsx", "typescript")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("codegemma", "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>"),
        ("qwen", "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>"),
        ("codellama", "<PRE> P <SUF> S <MID>"),
        ("codestral", "[SUFFIX]S[PREFIX]P"),
        ("deepseek", "<｜fim▁begin｜>P<｜fim▁hole｜>S<｜fim▁end｜>"),
    ],
)
def test_each_family_has_its_own_markers_and_stops_at_them(name: str, wanted: str) -> None:
    marked = mark_cursor(name, "P", "S")

    assert marked == wanted
    form = FORMATS[name]
    for marker in (form.before, form.between, form.after):
        assert not marker.strip() or marker.strip() in form.stop
    assert len(form.stop) <= 4


def test_a_family_may_name_every_format_and_no_other() -> None:
    field = next(each for each in fields(FamilyRecord) if each.name == "fill_in")

    assert set(get_args(field.type)) == {"", *FORMATS}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_context_stands_right_before_the_prefix(name: str) -> None:
    assert "C\nP" in mark_cursor(name, "P", "S", "C")


def window_of(prefix: str, suffix: str = "", *contents: str) -> Cursor:
    return Cursor(prefix=prefix, suffix=suffix, context=tuple(Attachment("file", "f", text) for text in contents))


def test_what_fits_is_untouched() -> None:
    window = fit(window_of("above\n", "below\n", "one", "two"), 1_000)

    assert (window.prefix, window.suffix, window.context) == ("above\n", "below\n", "one\ntwo")
    assert window.context_tokens_sent == window.context_tokens_used == estimate_tokens("one\ntwo")


def test_the_cursor_neighbourhood_stays() -> None:
    prefix = "".join(f"line {number}\n" for number in range(10_000)) + "cursor_here"
    suffix = "after_here" + "".join(f"\nline {number}" for number in range(10_000))

    window = fit(window_of(prefix, suffix, "context"), 1_000)

    assert window.prefix.endswith("\ncursor_here")
    assert window.prefix.startswith("line ")
    assert window.suffix.startswith("after_here\n")
    assert window.suffix.endswith("\n")
    assert count_bytes(window.suffix) <= bytes_of(70)
    assert window.context == ""


@pytest.mark.parametrize(("share", "tokens"), [(1.0, 900), (0.3, 300), (0.0, 0)])
def test_attachments_get_their_share_at_most(share: float, tokens: int) -> None:
    window = fit(window_of("x = 1\n", "", "word " * 10_000), 1_000, context_share=share)

    assert window.prefix == "x = 1\n"
    assert window.context == ("word " * 10_000)[: len(window.context)]
    assert tokens * 0.9 <= window.context_tokens_used <= max(tokens * 1.11, 0)
    assert window.context_tokens_sent == estimate_tokens("word " * 10_000)


def test_attachments_that_are_not_wanted_are_counted_only() -> None:
    window = fit(window_of("x", "", "word"), 1_000, uses_context=False)

    assert (window.context, window.context_tokens_sent, window.context_tokens_used) == ("", 2, 0)


def test_a_cut_falls_between_lines_where_one_is_near() -> None:
    lines = "0123456789\n" * 100

    assert keep_end(lines, 505).startswith("0123456789\n")
    assert keep_start(lines, 505).endswith("0123456789\n")
    assert keep_end("x" * 1_000, 500) == "x" * 500
    assert keep_start("x" * 1_000, 500) == "x" * 500


@pytest.mark.parametrize("limit", range(10))
def test_letters_of_several_bytes_stay_whole(limit: int) -> None:
    assert keep_end("é𝄞", limit) == {0: "", 1: "", 2: "", 3: "", 4: "𝄞", 5: "𝄞"}.get(limit, "é𝄞")
    assert keep_start("é𝄞", limit) == {0: "", 1: "", 2: "é", 3: "é", 4: "é", 5: "é"}.get(limit, "é𝄞")


TEXT = st.text("ab\n é€𝄞", max_size=300)


@given(TEXT, TEXT, TEXT, st.integers(0, 200), st.floats(0, 1))
def test_every_window_fits_and_is_a_piece_of_the_file(
    prefix: str, suffix: str, context: str, input_tokens: int, share: float
) -> None:
    window = fit(window_of(prefix, suffix, context), input_tokens, context_share=share)

    assert prefix.endswith(window.prefix)
    assert suffix.startswith(window.suffix)
    assert context.startswith(window.context)
    together = f"{window.context}\n{window.prefix}{window.suffix}" if window.context else window.prefix + window.suffix
    assert count_bytes(together) <= bytes_of(input_tokens)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 2), ("abcdefg", 2), ("é" * 7, 4)])
def test_tokens_are_estimated_from_bytes(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_a_client_s_own_inputs_win_over_ours() -> None:
    order = GenerationOrder(
        cursor=Cursor(prefix="p", file_name="a.go"),
        wish=ModelWish(),
        instruction="ours",
        inputs={"user_instruction": "theirs", "libraries": ["net/http"]},
    )

    assert order.template_inputs == {
        "prefix": "p",
        "suffix": "",
        "file_name": "a.go",
        "language": "go",
        "instruction": "ours",
        "user_instruction": "theirs",
        "libraries": ["net/http"],
    }
