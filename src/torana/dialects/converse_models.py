"""What the models behind Bedrock take of the converse dialect; what one does not take, it refuses with a 400.

By the model's id alone: `anthropic.claude-…`, an inference profile's `us.amazon.nova-…`, or the ARN of either. A
name of no known vendor, such as an account's own inference profile, hides most often Claude, and is asked as Claude.
Sources: Bedrock user guide, "Supported models and model features", "Structured outputs", "Prompt caching"; Nova
developer guide, "Extended thinking". As of November 2026.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Family = Literal["claude", "nova", "gpt", "other"]

_vendor = re.compile(
    r"(?:^|[./])(amazon|meta|mistral|cohere|ai21|deepseek|qwen|openai|google|minimax|moonshot|moonshotai|nvidia|writer"
    r"|zai|xai)\."
)
_takes_schema = re.compile(
    r"qwen\.|openai\.|deepseek\.v|google\.gemma|minimax\.|moonshot|nvidia\.|zai\."
    r"|mistral\.(ministral|magistral|voxtral|devstral)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    family: Family = "claude"
    takes_marks: bool = True
    """`cachePoint`, where a cached prefix ends."""
    takes_schema: bool = True
    """Answers and tools that follow a schema to the letter; Claude's own table says more."""
    takes_status: bool = True
    """`status` of a tool's result."""
    thinks_by_effort: bool = False
    """low, medium or high; Claude's own table says more."""


@lru_cache(maxsize=256)
def traits_of(model: str) -> Traits:
    found = _vendor.search(model)
    if found is None:
        return Traits()
    if "amazon.nova" in model:
        return Traits(family="nova", takes_schema=False, thinks_by_effort="nova-2" in model)
    return Traits(
        family="gpt" if "openai.gpt" in model else "other",
        takes_marks=False,
        takes_schema=_takes_schema.search(model) is not None,
        takes_status=False,
        thinks_by_effort="openai.gpt" in model,
    )
