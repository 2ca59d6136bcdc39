"""What OpenAI's models take of OpenAI's formats. Other servers follow the format, and know its older part.

Sources: OpenAI docs, "Reasoning models", "Latest model guide" (GPT-5.1 to GPT-6.1), "Prompt caching"; its API's
400 "Function tools with reasoning_effort are not supported … in /v1/chat/completions"; as of November 2026.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from torana.chat import Effort

_name = re.compile(
    r"(?:^|/)(?:gpt-(?P<gpt>\d(?:\.\d+)?)o?(?![a-z0-9])(?P<rest>[\w.-]*)|(?P<o>o\d)(?![a-z0-9])(?P<o_rest>[\w.-]*)"
    r"|chatgpt-4o)"
)
_in_responses_alone = re.compile(r"-(?:codex|pro|deep-research)(?![a-z])")
_never_off = re.compile(r"(?:^|/)gpt-6(?:-astra|\.1-sol)")
_COMMON: tuple[Effort, ...] = ("low", "medium", "high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """The defaults are those of a server that is not OpenAI's."""

    is_openais: bool = False
    reasons: bool = False
    """Refuses sampling, stops and the old name of the limit."""
    efforts: tuple[Effort, ...] = _COMMON
    """Empty: refuses to be asked."""
    takes_marks: bool = False
    """Marks of where a cached prompt ends."""
    takes_freeform: bool = False
    """Tools that take one text."""
    in_responses_alone: bool = False
    """OpenAI has it at no other endpoint."""
    tools_bar_thought: Literal["no", "asked", "unless_kept"] = "no"
    """Whether OpenAI's chat completions refuses tools beside thinking: never; where it is asked for; or already where
    the model is not kept from it."""


GENERAL = Traits()


@lru_cache(maxsize=256)
def traits_of(model: str) -> Traits:
    found = _name.search(model)
    if found is None:
        return GENERAL
    alone = bool(_in_responses_alone.search(found["rest"] or found["o_rest"] or ""))
    if found["o"]:
        return Traits(is_openais=True, reasons=True, in_responses_alone=alone)
    version = float(found["gpt"] or 4)
    if version < 5 or found["rest"].startswith("-chat"):
        return Traits(is_openais=True, efforts=())
    if version < 5.1:
        return Traits(
            is_openais=True, reasons=True, efforts=("minimal", *_COMMON), takes_freeform=True, in_responses_alone=alone
        )
    efforts: tuple[Effort, ...] = _COMMON if _never_off.search(model) else ("none", *_COMMON)
    if version >= 5.2 or "codex-max" in found["rest"]:
        efforts += ("xhigh",)
    return Traits(
        is_openais=True,
        reasons=True,
        efforts=(*efforts, "max") if version >= 5.6 else efforts,
        takes_marks=version >= 5.6,
        takes_freeform=True,
        in_responses_alone=alone,
        tools_bar_thought="no" if version < 5.2 else "asked" if version < 5.5 else "unless_kept",
    )
