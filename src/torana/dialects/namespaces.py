"""Tools that stand in a namespace, as Codex tells those of MCP servers. Other formats have one name for a tool.

Source: OpenAI API reference, "Responses", namespace tools; its calls tell name and namespace apart.
"""

from torana.chat import ChatRequest, Tool
from torana.dialects.members import Loc, Members, find_rows, need_text
from torana.errors import Invalid

MAX_NAME_CHARS = 256
"""Of a namespace: each of its tools is told with it, and vendors take a fraction of that."""

BETWEEN = "__"
"""As models know the names of MCP tools: `mcp__server__tool`."""


def join(namespace: str, name: str) -> str:
    """The one name."""
    return _prefix(namespace) + name


def spread(rows: list[Members], place: Loc) -> list[tuple[Members, Loc, str]]:
    """Each tool, where it stands, and its namespace, empty for one that stands alone; raises Invalid.

    place  of the list
    """
    tools: list[tuple[Members, Loc, str]] = []
    for at, row in enumerate(rows):
        loc: Loc = (*place, at)
        if row.get("type") == "namespace":
            name, inner = need_text(row, "name", loc), find_rows(row, "tools", loc)
            if len(name) > MAX_NAME_CHARS:
                raise Invalid(
                    (*loc, "name"), f"String should have at most {MAX_NAME_CHARS} characters", "string_too_long"
                )
            tools += [(each, (*loc, "tools", number), name) for number, each in enumerate(inner)]
        else:
            tools.append((row, loc, ""))
    return tools


def homes_of(asked: ChatRequest | None) -> dict[str, Members]:
    """The one name of each tool in a namespace → what a call of it says in its place."""
    tools = () if asked is None else asked.tools
    return {tool.name: _write_home(tool) for tool in tools if tool.namespace}


def _write_home(tool: Tool) -> Members:
    return {"name": tool.name.removeprefix(_prefix(tool.namespace)), "namespace": tool.namespace}


def _prefix(namespace: str) -> str:
    return namespace if not namespace or namespace.endswith(BETWEEN) else namespace + BETWEEN
