"""Whose prompts and answers may be written to the log (contract 15); nobody's unless somebody who may has said so."""

from collections.abc import Callable

from torana.headers import Headers
from torana.settings import Settings

VERBOSE = b"x-gitlab-enabled-instance-verbose-ai-logs"
FLAG = "expanded_ai_logging"

MayLog = Callable[[Headers, frozenset[str]], bool]
"""(headers, feature flags of the request's realm) → whether its texts may be logged."""


def make_policy(settings: Settings) -> MayLog:
    """The operator says so for all; an instance of a self-hosted gateway for each request; elsewhere the flag does."""
    if settings.log.contents:
        return lambda _headers, _flags: True
    if settings.providers.custom_models:
        return lambda headers, _flags: headers.get(VERBOSE) == "true"
    return lambda _headers, flags: FLAG in flags
