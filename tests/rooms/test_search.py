"""The search room: Markdown read into sections, the index file, hostile questions; and `torana docs index`."""

import json
import os
import re
import sqlite3
import time
import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torana.cli import main
from torana.search.build import NotAnIndex, build_index, page_url
from torana.search.index import (
    MAX_TOKENS,
    MAX_WORD_CHARS,
    MAX_WORDS_ASKED,
    TOKENS_PER_WORD,
    DocsIndex,
    Hit,
    fit_hits,
    write_match,
)
from torana.search.pages import MAX_PARAGRAPH_CHARS, MAX_WORDS, MIN_WORDS, Page, Section, read_page
from torana.search.release import Release, find_release, read_release

BASE = "https://docs.example.com"
R17, R18 = Release(17, 11), Release(18, 6)
MAX_RESULT_WORDS = int(MAX_TOKENS / TOKENS_PER_WORD)


def page(path: str, *texts: str, title: str = "A page") -> Page:
    return Page(path=path, title=title, md5sum="0" * 32, sections=tuple(Section("", text) for text in texts))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An index of two releases, each with a page that the other has not."""
    file = tmp_path / "docs.db"
    build_index([page("a.md", "runners execute jobs"), page("old.md", "ancient feature")], R17, file, BASE)
    build_index([page("a.md", "runners execute pipelines"), page("new.md", "novel feature")], R18, file, BASE)
    return file


def texts(hits: list[Hit] | None) -> list[str]:
    assert hits is not None
    return [hit.content for hit in hits]


def words(count: int, word: str = "word") -> str:
    return " ".join([word] * count)


# --- Releases ---


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("18.6", R18),
        ("18.6.1-ee", R18),
        ("v18.6.0", R18),
        ("18.6-pre", R18),
        ("018.06", R18),
        ("18", None),
        ("", None),
        ("18.x", None),
        ("latest", None),
        ("18.123456", None),
        ("99999.1", None),
        ("-18.6", None),
        ("१८.६", None),
    ],
)
def test_a_version_reads_as_major_and_minor(text: str, found: Release | None) -> None:
    assert find_release(text) == found


@pytest.mark.parametrize(("text", "found"), [("18.6", R18), (" 18.6 ", R18), ("18.6.1", None), ("v18.6", None)])
def test_people_write_a_release_as_two_numbers_only(text: str, found: Release | None) -> None:
    assert read_release(text) == found


def test_releases_are_ordered_by_number_and_not_by_text() -> None:
    assert Release(18, 10) > Release(18, 9)


# --- Pages ---


def test_a_page_has_the_title_of_its_front_matter_and_none_of_its_markup() -> None:
    source = b"""---
stage: Create
title: "Projects, explained"
---

<!-- a note
to writers -->

{{< details >}}

- Tier: Free

{{< /details >}}

Everything begins here.
"""

    found = read_page("user/index.md", source)

    assert found is not None
    assert found.title == "Projects, explained"
    assert found.sections == (Section("", "- Tier: Free\n\nEverything begins here."),)
    assert len(found.md5sum) == 32


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("Rename 'master' to 'main'", "Rename 'master' to 'main'"),
        ("'It''s the first'", "It's the first"),
        (r'"A \"quoted\" title: one"', 'A "quoted" title: one'),
        ("'", "'"),
    ],
)
def test_quotes_of_the_front_matter_go_and_those_of_the_title_stay(written: str, title: str) -> None:
    found = read_page("x.md", f"---\ntitle: {written}\n---\ntext".encode())

    assert found is not None
    assert found.title == title


@pytest.mark.parametrize(
    ("source", "title"),
    [(b"# Runners #\n\ntext", "Runners"), (b"text", "the-file"), (b"---\ntitle: ''\n---\ntext", "the-file")],
)
def test_without_a_written_title_the_first_heading_or_the_file_name_is_it(source: bytes, title: str) -> None:
    found = read_page("folder/the-file.md", source)

    assert found is not None
    assert found.title == title


@pytest.mark.parametrize(
    "source",
    [b"", b"\n\n", b"---\ntitle: x\n---\n", b"# Only a heading", b"---\nredirect_to: 'x.md'\n---\n\nIt moved."],
)
def test_a_page_without_text_of_its_own_is_left_out(source: bytes) -> None:
    assert read_page("a.md", source) is None


def test_sections_are_cut_at_headings_and_carry_the_path_to_them() -> None:
    long = words(MIN_WORDS)
    source = f"# T\n\n{long}\n\n## First\n\n{long}\n\n### Deep\n\n{long}\n\n## Second\n\n{long}"

    found = read_page("a.md", source.encode())

    assert found is not None
    assert [section.heading for section in found.sections] == ["", "First", "First > Deep", "Second"]


def test_short_sections_are_joined_and_keep_their_headings_as_text() -> None:
    found = read_page("a.md", b"# T\n\n## First\n\nOne.\n\n## Second\n\nTwo.")

    assert found is not None
    assert found.sections == (Section("First", "One.\n\n## Second\n\nTwo."),)


def test_a_comment_in_a_code_block_is_no_heading() -> None:
    source = f"{words(MIN_WORDS)}\n\n````shell\n# first\n```\n## second\n````\n\n## Real\n\nmore"

    found = read_page("a.md", source.encode())

    assert found is not None
    assert [section.heading for section in found.sections] == ["", "Real"]


def test_a_code_block_that_never_ends_is_text_to_the_end() -> None:
    found = read_page("a.md", b"```\n# a\n\n## b\n")

    assert found is not None
    assert found.sections == (Section("", "```\n# a\n\n## b"),)


@pytest.mark.parametrize(("count", "sections"), [(MAX_WORDS, 1), (MAX_WORDS + 1, 2)])
def test_a_long_section_is_cut_between_paragraphs(count: int, sections: int) -> None:
    found = read_page("a.md", f"{words(count - 10)}\n\n{words(10)}".encode())

    assert found is not None
    assert len(found.sections) == sections


def test_a_paragraph_without_end_is_cut_by_letters() -> None:
    found = read_page("a.md", ("ü" * (MAX_PARAGRAPH_CHARS + 1)).encode())

    assert found is not None
    assert "".join(found.sections[0].text.split()) == "ü" * (MAX_PARAGRAPH_CHARS + 1)


@settings(max_examples=150)
@given(st.binary() | st.text("#`~- \n\r\0<>!{}%ab", max_size=200).map(str.encode))
def test_any_bytes_are_a_page_or_none_and_no_word_is_lost(source: bytes) -> None:
    found = read_page("x.md", source)

    if found is not None:
        assert found.sections
        assert all(section.text.strip() and "\0" not in section.text for section in found.sections)


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["# one", "## two", "### three", "alpha", "beta gamma", "", "```", words(100)])))
def test_every_word_of_the_text_stands_in_some_section(lines: list[str]) -> None:
    found = read_page("x.md", "\n".join(lines).encode())

    wanted = {word for line in lines if not line.startswith("#") for word in line.split()}
    held = {word for section in found.sections for word in section.text.split()} if found else set()
    assert wanted <= held


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("index.md", f"{BASE}/"),
        ("_index.md", f"{BASE}/"),
        ("user/index.md", f"{BASE}/user/"),
        ("user/_index.md", f"{BASE}/user/"),
        ("user/project/settings.md", f"{BASE}/user/project/settings/"),
    ],
)
def test_a_page_is_published_under_its_path(path: str, url: str) -> None:
    assert page_url(path, BASE) == page_url(path, f"{BASE}/") == url


# --- The index ---


def test_one_file_holds_several_releases_apart(file: Path) -> None:
    index = DocsIndex(str(file))

    assert index.releases() == (R17, R18)
    assert texts(index.search("runners", 20, [R17])) == ["runners execute jobs"]
    assert texts(index.search("runners", 20, [R18])) == ["runners execute pipelines"]
    assert texts(index.search("ancient", 20, [R18])) == []


def test_the_first_wanted_release_that_is_held_is_searched(file: Path) -> None:
    index = DocsIndex(str(file))

    assert texts(index.search("runners", 20, [Release(1, 0), R17, R18])) == ["runners execute jobs"]
    assert texts(index.search("runners", 20, None)) == ["runners execute pipelines"]
    assert index.search("runners", 20, [Release(1, 0)]) is None
    assert index.search("runners", 20, []) is None


def test_building_a_release_again_replaces_it_and_leaves_the_others(file: Path) -> None:
    built = build_index([page("b.md", "runners rest")], R17, file, BASE)

    index = DocsIndex(str(file))
    assert (built.pages, built.sections, built.releases) == (1, 1, (R17, R18))
    assert texts(index.search("runners", 20, [R17])) == ["runners rest"]
    assert texts(index.search("runners", 20, [R18])) == ["runners execute pipelines"]


def test_a_new_file_serves_without_a_new_start(file: Path) -> None:
    index = DocsIndex(str(file))
    assert texts(index.search("zebra", 4, None)) == []

    build_index([page("z.md", "zebra")], Release(19, 0), file, BASE)

    assert texts(index.search("zebra", 4, None)) == ["zebra"]


def test_a_build_that_fails_leaves_the_file_and_its_folder_as_they_were(file: Path) -> None:
    before = file.read_bytes()

    def broken() -> list[Page]:
        raise OSError("disk on fire")

    with pytest.raises(OSError, match="fire"):
        build_index((each for _ in range(1) for each in broken()), R18, file, BASE)

    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_a_file_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("my notes, which are longer than a page header would be" * 20)
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE mine (x)")
    database.commit()
    database.close()

    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(NotAnIndex):
            build_index([page("a.md", "x")], R18, path, BASE)
        with pytest.raises(NotAnIndex):
            DocsIndex(str(path)).search("x", 1, None)
        assert path.read_bytes() == before


def test_without_a_file_nothing_is_held(tmp_path: Path) -> None:
    for index in (DocsIndex(""), DocsIndex(str(tmp_path / "none.db")), DocsIndex(str(tmp_path))):
        assert index.releases() == ()
        assert index.search("x", 1, None) is None


def test_a_path_may_hold_any_letter(tmp_path: Path) -> None:
    file = tmp_path / "ü ?#%41.db"

    build_index([page("a.md", "zebra")], R18, file, BASE)

    assert texts(DocsIndex(str(file)).search("zebra", 1, None)) == ["zebra"]


def test_a_file_name_that_is_no_text_is_indexed_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "docs.db"

    build_index([page("caf\udce9.md", "zebra")], R18, file, BASE)

    (hit,) = DocsIndex(str(file)).search("zebra", 1, None) or []
    assert hit.source == "caf?.md"


@pytest.mark.parametrize("limit", [1, 2, 20])
def test_there_are_at_most_as_many_results_as_asked_for(tmp_path: Path, limit: int) -> None:
    file = tmp_path / "docs.db"
    build_index([page(f"{n}.md", "zebra") for n in range(25)], R18, file, BASE)

    assert len(texts(DocsIndex(str(file)).search("zebra", limit, None))) == limit


def test_a_title_counts_more_than_the_text(tmp_path: Path) -> None:
    file = tmp_path / "docs.db"
    pages = [page("a.md", "zebra zebra zebra", title="Other"), page("b.md", "something else", title="Zebra")]
    build_index(pages, R18, file, BASE)

    hits = DocsIndex(str(file)).search("zebras", 2, None) or []

    assert [(hit.source, hit.id) for hit in hits] == [("b.md", "doc2"), ("a.md", "doc1")]


def test_an_id_survives_the_reading_of_a_cited_source(file: Path) -> None:
    hits = DocsIndex(str(file)).search("runners", 4, None) or []

    # What Rails reads of `CNT-IDX-<id>`.
    assert hits
    assert all(re.fullmatch(r"[0-9a-z]+", each.id) for each in hits)


def test_common_words_count_only_where_there_are_no_others(tmp_path: Path) -> None:
    file = tmp_path / "docs.db"
    build_index([page("a.md", "how to do it"), page("b.md", "a zebra")], R18, file, BASE)
    index = DocsIndex(str(file))

    assert texts(index.search("How do I get a zebra?", 4, None)) == ["a zebra"]
    assert texts(index.search("how?", 4, None)) == ["how to do it"]


# --- Questions ---


@pytest.mark.parametrize(
    "question",
    [
        '"',
        '""" OR "x',
        "zebra AND",
        "NEAR(zebra, 3)",
        "title: zebra",
        "zebra*",
        "^zebra",
        "-zebra +zebra",
        "(zebra",
        "{title content}: zebra",
        "zebra; DROP TABLE sections_18_6; --",
        "zeb\0ra zebra",
        "\0",
        "_ __ zebra",
        "zebra " * 60_000,
        "z" * 400_000,
        "( " * 200_000,
        " ".join(f"w{number}" for number in range(50_000)),
        "\ufffd \U0001f993 zebra",
    ],
)
def test_no_question_is_a_statement(file: Path, question: str) -> None:
    build_index([page("z.md", "a zebra")], R18, file, BASE)
    index = DocsIndex(str(file))

    hits = index.search(question, 4, None)

    assert hits is not None
    assert {hit.content for hit in hits} <= {"a zebra"}
    assert index.releases() == (R17, R18)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=st.text(max_size=80) | st.text("\"'*^-+:(){}ANDORT _\0", max_size=80))
def test_any_text_can_be_asked(file: Path, question: str) -> None:
    assert DocsIndex(str(file)).search(question, 4, None) is not None


@pytest.mark.parametrize("question", ["", "  ", "?!.,;:", "\0\0", "___", "z" * (MAX_WORD_CHARS + 1)])
def test_a_question_without_words_finds_nothing(file: Path, question: str) -> None:
    assert write_match(question) == ""
    assert DocsIndex(str(file)).search(question, 4, None) == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_found_however_they_are_written(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    out = tmp_path / "docs.db"
    build_index([page("a.md", "Die Übersicht")], R18, out, BASE)
    index = DocsIndex(str(out))

    assert index.search(unicodedata.normalize(form, "Übersicht?"), 4, None)
    assert index.search("_\u0301", 4, None) == []


def test_so_many_words_are_looked_for_and_no_more() -> None:
    at_limit = " ".join(f"w{number}" for number in range(MAX_WORDS_ASKED))

    assert write_match(at_limit).count('"') == 2 * MAX_WORDS_ASKED
    assert write_match(f"{at_limit} more") == write_match(at_limit)
    assert write_match("Zebra zebra ZEBRA") == '"zebra"'
    assert write_match("z" * MAX_WORD_CHARS) != ""


def hit(content: str) -> Hit:
    return Hit("doc1", "t", "", content, "a.md", f"{BASE}/a/", "0" * 32)


def test_results_together_stay_within_the_tokens() -> None:
    half = MAX_RESULT_WORDS // 2
    one_fits = fit_hits([hit(words(MAX_RESULT_WORDS))], MAX_TOKENS)
    one_is_cut = fit_hits([hit(words(MAX_RESULT_WORDS + 1))], MAX_TOKENS)
    several = fit_hits([hit(words(half)), hit("a\n\n" + words(half)), hit("x")], MAX_TOKENS)

    assert one_fits == [hit(words(MAX_RESULT_WORDS))]
    assert one_is_cut == [hit(words(MAX_RESULT_WORDS))]
    assert len(several) == 2
    assert several[1].content.startswith("a\n\nword")
    assert sum(len(each.content.split()) for each in several) == MAX_RESULT_WORDS
    assert fit_hits([], MAX_TOKENS) == []


@settings(max_examples=100)
@given(st.lists(st.text("ab \n", max_size=40).map(hit), max_size=6), st.integers(0, 60))
def test_no_results_are_ever_over_the_tokens(hits: list[Hit], max_tokens: int) -> None:
    kept = fit_hits(hits, max_tokens)

    assert sum(len(each.content.split()) for each in kept) * TOKENS_PER_WORD <= max_tokens
    assert all(hits[number].content.startswith(each.content) for number, each in enumerate(kept))


# --- torana docs index ---


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["docs", "index", *map(str, args)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "doc"
    (folder / "user").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "user" / "index.md").write_text("# Users\n\nAll about users.")
    (folder / "moved.md").write_text("---\nredirect_to: user/index.md\n---\n\nThis moved.")
    (folder / ".hidden" / "x.md").write_text("hidden")
    (folder / "notes.txt").write_text("no Markdown")
    return folder


def test_the_command_builds_a_file_and_adds_a_version_to_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "docs.db"

    first = run(folder, "--version", "18.6", "--out", out)
    second = run(folder, "--version", "17.11", "--out", out, "--json", "--base-url", BASE)

    assert (first.exit_code, first.stderr) == (0, "")
    assert "18.6: 1 pages, 1 sections" in first.stdout
    assert json.loads(second.stdout) == {
        "file": str(out), "version": "17.11", "pages": 1, "sections": 1, "versions": ["17.11", "18.6"],
    }  # fmt: skip
    (hit,) = DocsIndex(str(out)).search("users", 4, [R17]) or []
    assert (hit.title, hit.source, hit.source_url) == ("Users", "user/index.md", f"{BASE}/user/")
    (hit,) = DocsIndex(str(out)).search("users", 4, [R18]) or []
    assert hit.source_url == "https://docs.gitlab.com/user/"


@pytest.mark.parametrize("version", ["18", "18.6.1", "latest", ""])
def test_a_version_that_is_none_is_wrong_usage(folder: Path, tmp_path: Path, version: str) -> None:
    result = run(folder, "--version", version, "--out", tmp_path / "docs.db")

    assert result.exit_code == 2
    assert "18.6" in result.stderr
    assert not (tmp_path / "docs.db").exists()


def test_an_address_of_the_pages_that_is_none_is_wrong_usage(folder: Path, tmp_path: Path) -> None:
    result = run(folder, "--version", "18.6", "--out", tmp_path / "docs.db", "--base-url", "docs.example.com")

    assert (result.exit_code, "'docs.example.com' is no address" in result.stderr) == (2, True)
    assert not (tmp_path / "docs.db").exists()


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    assert run(tmp_path / "none", "--version", "18.6", "--out", tmp_path / "docs.db").exit_code == 2


def test_failures_say_what_to_do_and_write_nothing(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    other = tmp_path / "other.txt"
    other.write_text("mine")

    nothing = run(empty, "--version", "18.6", "--out", tmp_path / "a.db")
    strange = run(folder, "--version", "18.6", "--out", other)
    nowhere = run(folder, "--version", "18.6", "--out", tmp_path / "no" / "such" / "a.db")

    assert [each.exit_code for each in (nothing, strange, nowhere)] == [1, 1, 1]
    assert "no Markdown" in nothing.stderr
    assert "another file" in strange.stderr
    assert "cannot be written" in nowhere.stderr
    assert other.read_text() == "mine"


def test_a_page_that_cannot_be_read_is_named_and_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "good.md").write_text("# Good\n\nText.\n")
    (tmp_path / "pages" / "odd.md").symlink_to("/proc/self/mem")  # whoever reads it, root too
    out = tmp_path / "docs.sqlite"

    result = run(tmp_path / "pages", "--version", "18.6", "--out", out)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{tmp_path}/pages/odd.md: cannot be read: Input/output error\n"
    assert os.listdir(tmp_path) == ["pages"]


@pytest.mark.parametrize("begun", ["<!-- a\n\n", "{{< a\n\n", "# a{#\n\n", "# a" + " " * 2_000 + "!\n\n"])
def test_what_begins_and_never_ends_is_read_in_linear_time(begun: str) -> None:
    def seconds(times: int) -> float:
        source = (begun * (times // len(begun))).encode()
        started = time.thread_time()
        read_page("a.md", source)
        return time.thread_time() - started

    assert seconds(160_000) < 8 * min(seconds(40_000) for _ in range(3)) < 4


@pytest.mark.parametrize(
    ("line", "heading"),
    [
        ("## A b ##", "A b"),
        ("## A {#b}", "A"),
        ("## A {b}", "A {b}"),
        ("## #", "#"),
        ("## {#b}", "{#b}"),
        ("## C#", "C"),
    ],
)
def test_a_heading_is_told_without_its_anchor_and_closing_signs(line: str, heading: str) -> None:
    read = read_page("a.md", f"{line}\n\ntext\n".encode())

    assert read is not None
    assert [section.heading for section in read.sections] == [heading]
