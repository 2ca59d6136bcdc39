"""Contract 15's words for failed model calls."""

from torana.errors import ProviderError, ProviderRefused, ProviderTimedOut, ProviderUnreachable

_TOO_LONG = frozenset(("request_too_large", "context_length_exceeded", "string_above_max_length"))


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
        case ProviderRefused(upstream_code=413):
            return "prompt_too_long"
        case ProviderRefused(upstream_code=400, kind=kind):
            # Some vendors tell it by their error type, some in the text alone.
            is_too_long = kind in _TOO_LONG or "prompt is too long" in str(error).lower()
            return "prompt_too_long" if is_too_long else "http_400"
        case _:
            return "other"
