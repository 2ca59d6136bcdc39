"""What each Claude model takes of the messages dialect; what it does not take, it refuses with a 400.

By the name alone, in every cloud's spelling; a name that is none of Claude's takes what the format has.
Sources: Claude docs, "Thinking", "Effort", "Structured outputs", "Migration guide" (Opus 4.7 to Opus 5.5,
Sonnet 5 and 5.5, Haiku 5.5), as of November 2026.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from torana.chat import Effort

_name = re.compile(
    r"claude-(?:(?P<family>opus|sonnet|haiku|fable|mythos)-(?P<version>\d(?:[.-]\d{1,2})?(?!\d)|preview|latest)"
    r"|(?P<old>\d(?:[.-]\d)?)-(?P<old_family>opus|sonnet|haiku))"
)
_NEWEST = (99, 0)
_ROOM = 16_384
"""For models that think unasked, as part of their answer."""
_ALL: tuple[Effort, ...] = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """The defaults are the format's own: servers that follow it, and requests read before a model is known."""

    max_tokens: int = 4096
    """Of an answer whose limit nobody names; the API demands one, and this one every model accepts."""
    thinking: Literal["none", "budget", "adaptive"] = "budget"
    """How it is asked to think: not at all, within a budget of tokens, or as it sees fit."""
    off: Literal["omit", "disabled", "between_tools", "never"] = "disabled"
    """How it is kept from thinking."""
    efforts: tuple[Effort, ...] = _ALL
    """Of `output_config.effort`."""
    takes_sampling: bool = True
    """`temperature`, `top_p` and `top_k`."""
    takes_both: bool = True
    """`temperature` beside `top_p`."""
    takes_begun_answer: bool = True
    """A last turn of the assistant's, to be carried on."""
    forced_tools: Literal["yes", "never"] = "yes"
    """Whether `tool_choice` may demand a call; while it thinks, no model lets it."""
    takes_schema: bool = True
    """Answers and tools that follow a schema to the letter."""


GENERAL = Traits()


@lru_cache(maxsize=256)
def traits_of(model: str) -> Traits:
    found = _name.search(model)
    if found is None:
        return GENERAL
    family = found["family"] or found["old_family"]
    version = _read_version(found["version"] or found["old"])
    if family in ("fable", "mythos"):
        return _adaptive(off="never", forced="never" if version >= (5, 1) else "yes")
    if version >= (5, 5):
        off: dict[str, Literal["disabled", "between_tools", "never"]] = {
            "haiku": "disabled",
            "sonnet": "between_tools" if version == (5, 5) else "never",
        }
        return _adaptive(off=off.get(family, "never"), forced="yes" if family == "haiku" else "never")
    if version >= (5, 0):
        return _adaptive(off="disabled")
    if version >= (4, 7):
        return _adaptive(off="omit")
    if version >= (4, 6):
        return Traits(
            thinking="adaptive",
            off="omit",
            efforts=("low", "medium", "high", "max"),
            takes_both=False,
            takes_begun_answer=False,
        )
    return Traits(
        thinking="budget" if version >= (3, 7) else "none",
        off="omit",
        efforts=("low", "medium", "high") if (family, version) == ("opus", (4, 5)) else (),
        takes_both=version < (4, 1),
        takes_schema=version >= (4, 5) or (family, version) == ("opus", (4, 1)),
    )


def _adaptive(
    *, off: Literal["omit", "disabled", "between_tools", "never"], forced: Literal["yes", "never"] = "yes"
) -> Traits:
    return Traits(
        max_tokens=_ROOM,
        thinking="adaptive",
        off=off,
        takes_sampling=False,
        takes_both=False,
        takes_begun_answer=False,
        forced_tools=forced,
    )


def _read_version(text: str) -> tuple[int, int]:
    if not text[0].isdigit():
        # Names without a number stand for the newest of their family.
        return (5, 0) if text == "preview" else _NEWEST
    major, _, minor = text.replace(".", "-").partition("-")
    return int(major), int(minor or 0)
