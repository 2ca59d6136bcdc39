"""Parameters of model calls, as prompt files and model records give them. What we do not know goes to the provider."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from torana.setting_checks import DECIMAL_PARAMS, WHOLE_PARAMS, param_fault

_OURS = ("model", "messages", "stream")
"""Members of a call, no parameters of it: sent as such they would replace what was rendered and picked."""

_KNOWN = sorted(WHOLE_PARAMS | DECIMAL_PARAMS | {"stop"})
_LIKENESS = 0.85
"""From here on a name is a slip of the pen: `max_token`, and not OpenRouter's `top_a`, which is no `top_k`."""


def wrong_params(params: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(name, what is wrong, what is expected). Null stands for a parameter that is not given."""
    for name, value in params.items():
        if name in _OURS:
            yield name, f"`{name}` is no parameter", "expected it left out: the gateway says this itself"
            continue
        if name in _KNOWN:
            if value is not None and (expected := param_fault(name, value)):
                yield name, f"`{name}` is {value!r}", expected
        elif near := difflib.get_close_matches(name, _KNOWN, n=1, cutoff=_LIKENESS):
            yield name, f"unknown parameter `{name}`", f"did you mean `{near[0]}`?"
