"""The client's tools as the model sees them, and which of them a step may offer (contract 7.1)."""

import re
from collections.abc import Collection
from dataclasses import dataclass

COMMIT_FLAG = "ai_commit_reader_for_chat"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """One tool. The client makes a class name of `name`, so it is spelled exactly."""

    name: str
    unit_primitive: str
    description: str
    example: str
    """An action input that shows what the tool wants."""
    since: str = ""
    """First version of the client that has the tool; empty: all of them."""
    missing_before: str = ""
    """Clients that say a lower version have no such tool; one that says none may."""
    flag: str = ""
    """Feature flag that releases before `flag_until` also need."""
    flag_until: str = ""


TOOLS = (
    ToolSpec(
        name="issue_reader",
        unit_primitive="ask_issue",
        description="Reads one issue: title, description, state, people, labels, dates, comments. "
        "Not for writing, and not for lists of issues.",
        example="Who is working on issue #42, and what is still open?",
    ),
    ToolSpec(
        name="epic_reader",
        unit_primitive="ask_epic",
        description="Reads one epic: title, description, state, dates, labels, comments.",
        example="What is the goal of epic &7?",
    ),
    ToolSpec(
        name="work_item_reader",
        unit_primitive="ask_work_item",
        description="Reads one work item, such as a task, an objective, or an issue or epic in its newer form.",
        example="Summarize the work item at this URL: https://gitlab.example.com/group/app/-/work_items/42",
        missing_before="18.0.0-pre",
    ),
    ToolSpec(
        name="merge_request_reader",
        unit_primitive="ask_merge_request",
        description="Reads one merge request: title, description, state, people, changes, discussions.",
        example="What does merge request !15 change?",
        since="17.5.0-pre",
    ),
    ToolSpec(
        name="commit_reader",
        unit_primitive="ask_commit",
        description="Reads one commit: message, author, date, changed lines.",
        example="What did commit 4f2a9c1e change?",
        since="17.5.0-pre",
        flag=COMMIT_FLAG,
        flag_until="18.0.0-pre",
    ),
    ToolSpec(
        name="build_reader",
        unit_primitive="ask_build",
        description="Reads one CI/CD job: status, stage, duration, log.",
        example="Why did job 981 fail?",
        since="17.5.0-pre",
    ),
    ToolSpec(
        name="gitlab_documentation",
        unit_primitive="documentation_search",
        description="Searches the GitLab documentation: how a feature works, how it is set up, which plan has it. "
        "Knows nothing of the user's own projects.",
        example="How do I protect a branch?",
    ),
)

_PLAIN_NAMES = {"".join(filter(str.isalnum, tool.name)): tool.name for tool in TOOLS}
_SAID_CHARS = 1_000
"""Of what a model names as the tool."""

_WORD = re.compile(r"[A-Za-z][A-Za-z_\\]*", re.ASCII)

Version = tuple[int, int, int, bool]
"""Major, minor, patch, and whether it is released: False sorts first, as a pre-release must."""

_VERSION = re.compile(r"v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?((?:[-+.][0-9A-Za-z.+-]*)?)", re.ASCII)


def find_tool(said: str) -> str:
    r"""The tool that a model names, spelled as the client spells it; empty: none.

    `MergeRequestReader`, `merge\_request\_reader` and `Merge Request Reader.` are one tool. Among other words
    the first tool counts: `Use merge_request_reader (it knows !1)`.
    """
    line = said.strip()[:_SAID_CHARS].partition("\n")[0]
    plain = ("".join(filter(str.isalnum, words)).lower() for words in (line, *_WORD.findall(line)))
    return next((_PLAIN_NAMES[name] for name in plain if name in _PLAIN_NAMES), "")


def warns_of_cuts(version_text: str) -> bool:
    """True for clients who tell their users that an answer was cut off, unless its last piece says how it ended."""
    version = read_version(version_text)
    return version is not None and version >= _bound("19.0.0-pre")


def offer(
    scopes: Collection[str], version_text: str, flags: Collection[str], *, is_debug: bool = False
) -> tuple[ToolSpec, ...]:
    """The tools that a caller's unit primitives, the client's version and its flags allow.

    version_text  as the client sent it; missing or unreadable hides every tool that asks for a version
    is_debug      the caller has every unit primitive
    """
    version = read_version(version_text)
    return tuple(
        tool for tool in TOOLS if (is_debug or tool.unit_primitive in scopes) and _is_known(tool, version, flags)
    )


def read_version(text: str) -> Version | None:
    """`18.4.0-pre`, `17.9.2-ee`, `18.1`; suffixes other than `-pre` say nothing. None: unreadable."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        return None
    major, minor, patch, suffix = match.groups()
    is_pre = "pre" in re.split(r"[-.]", suffix.partition("+")[0])
    return int(major), int(minor), int(patch or 0), not is_pre


def _is_known(tool: ToolSpec, version: Version | None, flags: Collection[str]) -> bool:
    """True where the client's release has the tool."""
    if tool.missing_before and version is not None and version < _bound(tool.missing_before):
        return False
    if not tool.since:
        return True
    if version is None or version < _bound(tool.since):
        return False
    return not tool.flag or tool.flag in flags or version >= _bound(tool.flag_until)


def _bound(text: str) -> Version:
    version = read_version(text)
    assert version is not None, text
    return version
