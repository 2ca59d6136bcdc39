"""Values of the environment whose shape their type alone does not tell.

Every check takes the name that the operator used and its text, and raises BadSetting.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from torana.errors import BadSetting
from torana.setting_values import check_proxy, check_url, is_header, read_bool, read_float, read_int, read_object

LIMIT_KINDS = frozenset({"concurrency", "input_tokens", "output_tokens", "total_tokens"})
WHOLE_PARAMS = frozenset({"max_tokens", "top_k", "max_retries"})
DECIMAL_PARAMS = frozenset({"temperature", "top_p", "timeout"})
"""Parameters of model calls that we read ourselves."""


def check_values(found: Mapping[str, str]) -> None:
    """found   texts by name, empty ones left out"""
    for name, check in _CHECKS.items():
        if name in found:
            check(name, found[name])


def _check_limits(name: str, text: str) -> None:
    """A bare number is a concurrency (17.x)."""
    expected = "expected engine → model → {concurrency, input_tokens, output_tokens, total_tokens: number}"
    for engine, models in read_object(name, text).items():
        if not isinstance(models, dict):
            raise BadSetting(name, f"{engine!r} is no object", expected)
        for model, value in models.items():
            for kind, number in (value if isinstance(value, dict) else {"concurrency": value}).items():
                if kind not in LIMIT_KINDS or isinstance(number, bool) or not isinstance(number, int | float):
                    raise BadSetting(name, f"{engine}.{model}.{kind} is no known limit or no number", expected)


def _check_texts(name: str, text: str) -> None:
    for key, value in read_object(name, text).items():
        if not isinstance(value, str):
            raise BadSetting(name, f"{key!r} is no text", 'expected {"name": "text"}')


def _check_headers(name: str, text: str) -> None:
    _check_texts(name, text)
    for key, value in read_object(name, text).items():
        if not is_header(key, value):
            raise BadSetting(name, f"{key!r} cannot be sent", 'expected {"X-Name": "one line"}')


def _check_lists(name: str, text: str) -> None:
    for key, value in read_object(name, text).items():
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise BadSetting(name, f"{key!r} is no list of texts", 'expected {"name": ["text"]}')


def _check_scores(name: str, text: str) -> None:
    for key, value in read_object(name, text).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadSetting(name, f"{key!r} is no number", 'expected {"model": number}')


def _check_params(name: str, text: str) -> None:
    for key, params in read_object(name, text).items():
        if not isinstance(params, dict):
            raise BadSetting(name, f"{key!r} is no object", 'expected {"name": {"max_tokens": 1024}}')
        for param, value in params.items():
            if expected := param_fault(param, value):
                raise BadSetting(name, f"{key}.{param} is {json.dumps(value)}", expected)


def param_fault(name: str, value: Any) -> str:
    """What is expected of a parameter instead of `value`; empty: nothing is wrong with it, or it is none of ours."""
    if name == "stop":
        texts = [value] if isinstance(value, str) else value
        is_text = isinstance(texts, list) and all(isinstance(text, str) and text for text in texts)
        return "" if is_text else "expected a text or a list of texts, none of them empty"
    is_whole = name in WHOLE_PARAMS
    if not is_whole and name not in DECIMAL_PARAMS:
        return ""
    least = 1 if name == "max_tokens" else 0
    is_number = isinstance(value, int if is_whole else int | float) and not isinstance(value, bool)
    return "" if is_number and value >= least else f"expected a {'whole ' if is_whole else ''}number, {least} or more"


def _check_regions(name: str, text: str) -> None:
    for region, place in read_object(name, text).items():
        if not isinstance(place, dict) or not isinstance(place.get("endpoint"), str):
            raise BadSetting(
                name, f"{region!r} has no endpoint", 'expected {"region": {"endpoint": …, "identifier": …}}'
            )


def _check_some(name: str, text: str) -> None:
    """With none of it no request would ever be answered, or those alone that need no moment, or no turn of a loop."""
    if (read_float if name.endswith(("_S", "_TIMEOUT")) else read_int)(name, text) == 0:
        raise BadSetting(name, f"{text!r} leaves nothing", "expected a number above 0")


_CHECKS: dict[str, Callable[[str, str], Any]] = {
    "AIGW_ADMISSION__BODY_BYTES": _check_some,
    "AIGW_CUSTOM_MODELS__EXTRA_HEADERS": _check_headers,
    "AIGW_DEFAULT_PROMPTS": _check_texts,
    "AIGW_DUO_CHAT__MODEL_REQUEST_TIMEOUT": _check_some,
    "AIGW_FEATURE_FLAGS__DISALLOWED_FLAGS": _check_lists,
    "AIGW_FEATURE_FLAGS__FIREWORKS_SCORE_THRESHOLD": _check_scores,
    "AIGW_FIREWORKS_API_BASE_URL": check_url,
    "AIGW_MAX_BODY_BYTES": _check_some,
    "AIGW_MAX_HEADER_BYTES": _check_some,
    "AIGW_MAX_PROXY_BODY_BYTES": _check_some,
    "AIGW_MAX_URI_BYTES": _check_some,
    "AIGW_MODEL_ENDPOINTS__FIREWORKS_REGIONAL_ENDPOINTS": _check_regions,
    "AIGW_MODEL_ENGINE_CONCURRENCY_LIMITS": _check_limits,
    "AIGW_MODEL_ENGINE_LIMITS": _check_limits,
    "AIGW_MODEL_SELECTION__DEFAULT_MODELS": _check_texts,
    "AIGW_MODEL_SELECTION__MODEL_PARAMS": _check_params,
    "AIGW_MODEL_SELECTION__PROMPT_PARAMS": _check_params,
    "AIGW_PROMPTS__MAX_ITERATIONS": _check_some,
    "AIGW_PROMPTS__MAX_OUTPUT_CHARS": _check_some,
    "AIGW_ROUTING__TRIES": _check_some,
    "AIGW_SERVER__BODY_TIMEOUT_S": _check_some,
    "AIGW_SERVER__HEADER_TIMEOUT_S": _check_some,
    "AIGW_SERVER__WRITE_TIMEOUT_S": _check_some,
    "AIGW_TIMEOUTS__CONNECT_S": _check_some,
    "AIGW_TIMEOUTS__FIRST_BYTE_S": _check_some,
    "AIGW_TIMEOUTS__IDLE_S": _check_some,
    "AIGW_TIMEOUTS__REQUEST_S": _check_some,
    "AIGW_USAGE__MAX_SPOOL_BYTES": _check_some,
    **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), check_proxy),
    # Taken over from GitLab's gateway without acting on them; a typing error is one all the same.
    "AIGW_AUDIT_EVENT__ENABLED": read_bool,
    "AIGW_BILLING_EVENT__ENABLED": read_bool,
    "AIGW_FASTAPI__RELOAD": read_bool,
    "AIGW_INSTRUMENTATOR__THREAD_MONITORING_ENABLED": read_bool,
    "AIGW_INSTRUMENTATOR__THREAD_MONITORING_INTERVAL": read_float,
    "AIGW_INTERNAL_EVENT__ENABLED": read_bool,
    "AIGW_SNOWPLOW__ENABLED": read_bool,
}
