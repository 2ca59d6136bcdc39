"""Which tools a step offers."""

import pytest

from torana.agents.tools import COMMIT_FLAG, TOOLS, offer, read_version

ALL = {tool.unit_primitive for tool in TOOLS}
UNGATED = ["issue_reader", "epic_reader", "work_item_reader", "gitlab_documentation"]
OLD = ["issue_reader", "epic_reader", "gitlab_documentation"]
"""What clients before 18 have ungated: a work item reader would end their chat with an error."""
GATED = ["merge_request_reader", "commit_reader", "build_reader"]


def names(version: str, *flags: str, scopes: set[str] = ALL, is_debug: bool = False) -> set[str]:
    return {tool.name for tool in offer(scopes, version, flags, is_debug=is_debug)}


@pytest.mark.parametrize(
    ("name", "unit_primitive"),
    [
        ("issue_reader", "ask_issue"),
        ("epic_reader", "ask_epic"),
        ("work_item_reader", "ask_work_item"),
        ("gitlab_documentation", "documentation_search"),
        ("merge_request_reader", "ask_merge_request"),
        ("commit_reader", "ask_commit"),
        ("build_reader", "ask_build"),
    ],
)
def test_each_tool_needs_its_own_unit_primitive(name: str, unit_primitive: str) -> None:
    assert names("18.0.0", scopes={unit_primitive, "duo_chat", "unheard_of"}) == {name}


def test_without_unit_primitives_there_are_no_tools() -> None:
    assert names("18.0.0", scopes=set()) == set()


def test_a_debug_caller_has_every_unit_primitive_but_no_newer_client() -> None:
    assert names("18.0.0", scopes=set(), is_debug=True) == {*UNGATED, *GATED}
    assert names("17.4.0", scopes=set(), is_debug=True) == set(OLD)


@pytest.mark.parametrize("version", ["17.4.9", "17.4.9-ee", "16.11.0"])
def test_older_versions_hide_the_gated_tools(version: str) -> None:
    assert names(version, COMMIT_FLAG) == set(OLD)


@pytest.mark.parametrize("version", ["", "null", "seventeen", "17", "17.5.0_x"])
def test_missing_and_unreadable_versions_hide_the_gated_tools(version: str) -> None:
    assert names(version, COMMIT_FLAG) == set(UNGATED)


@pytest.mark.parametrize(
    "version",
    ["17.5.0-pre", "17.5.0", "17.5.0-ee", "17.5.0-ce.0", "17.5.0+build.7", "17.5.0-pre-ee", "17.10.1", "17.5"],
)
def test_the_gated_tools_come_with_the_pre_release_of_17_5(version: str) -> None:
    assert names(version) == {*OLD, "merge_request_reader", "build_reader"}
    assert names(version, COMMIT_FLAG) == {*OLD, *GATED}


@pytest.mark.parametrize("version", ["18.0.0-pre", "18.0.0", "18.4.2-ee", "19.0.0", "100.0.0"])
def test_from_18_on_the_commit_reader_needs_no_flag(version: str) -> None:
    assert names(version) == {*UNGATED, *GATED}


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("17.5.0-pre", "17.5.0"),
        ("17.5.0-pre+b", "17.5.0+b"),
        ("17.4.9", "17.5.0-pre"),
        ("17.9.0", "17.10.0-pre"),
        ("9.0.0", "10.0.0"),
    ],
)
def test_versions_compare_by_their_numbers_and_pre_releases_come_first(lower: str, higher: str) -> None:
    assert (read_version(lower) or ()) < (read_version(higher) or ())


@pytest.mark.parametrize("text", ["17.5.0", " v17.5.0 ", "17.5.0-ee", "17.5", "17.5.0+x-pre"])
def test_suffixes_say_nothing(text: str) -> None:
    assert read_version(text) == (17, 5, 0, True)


@pytest.mark.parametrize("text", ["", "17", "17.", "a.b.c", "1" * 5000 + ".0.0", "17.5.0 beta", "١٧.٥.٠"])
def test_other_texts_are_no_version(text: str) -> None:
    assert read_version(text) is None
