"""Contract 15's words for failed model calls."""

from torana.errors import PromptTooLong, ProviderError, ProviderRefused, ProviderTimedOut, ProviderUnreachable

_TOO_LARGE = frozenset(("request_too_large", "string_above_max_length"))


def error_type_of(error: ProviderError) -> str:
    """Contract 15's word for a failed model call; by status first, by the provider's own word last."""
    match error:
        case ProviderUnreachable() | ProviderTimedOut():
            return "connection_error"
        case ProviderRefused(upstream_code=401 | 403):
            return "permission_error"
        case ProviderRefused(upstream_code=529) | ProviderRefused(kind="overloaded_error"):
            return "overloaded"
        case ProviderRefused(upstream_code=503):
            return "service_unavailable"
        case PromptTooLong() | ProviderRefused(upstream_code=413):
            return "prompt_too_long"
        case ProviderRefused(upstream_code=400, kind=kind):
            return "prompt_too_long" if kind in _TOO_LARGE else "http_400"
        case _:
            return "other"
