"""What the headers of a request show: a token, its type, and who is said to call. Source: contract 2."""

from torana.errors import Refusal
from torana.headers import Headers

_TYPE = b"x-gitlab-authentication-type"
_WHO_CALLS = {
    b"x-gitlab-realm": "X-Gitlab-Realm",
    b"x-gitlab-instance-id": "X-Gitlab-Instance-Id",
    b"x-gitlab-global-user-id": "X-Gitlab-Global-User-Id",
}


def _bearer_of(headers: Headers) -> str:
    value = headers.get(b"authorization")
    if value is None:
        raise _unauthenticated("token_missing", "No authorization header presented", "Authorization")
    if headers.is_ambiguous(b"authorization"):
        raise _unauthenticated("header_repeated", "Invalid authorization header", "Authorization")
    scheme, _, token = value.partition(" ")
    if scheme != "Bearer" and scheme.lower() != "bearer":
        raise _unauthenticated("authorization_scheme", "Invalid authorization header", "Authorization")
    return token


def _key_of(headers: Headers) -> str | None:
    """The token where vendors' SDKs send a key; None where a bearer token wins, or nothing is there."""
    if headers.text(b"authorization")[:7].lower() == "bearer ":
        return None
    for name in (b"x-api-key", b"api-key"):
        value = headers.get(name)
        if value:
            if headers.is_ambiguous(name):
                raise _unauthenticated("header_repeated", "Invalid authorization header", name.decode())
            return value
    return None


def shown_token(headers: Headers, *, lenient: bool) -> str:
    """Raises Refusal 401 where there is none, or one of another type."""
    token = _key_of(headers) if lenient else None
    if token is None:
        token = _bearer_of(headers)
    kind = headers.get(_TYPE)
    if (kind != "oidc" and not (lenient and kind is None)) or headers.is_ambiguous(_TYPE):
        text = "Invalid authentication token type - only OIDC is supported"
        raise _unauthenticated("authentication_type", text, "X-Gitlab-Authentication-Type")
    return token


def match_claim(claim: str, headers: Headers, name: bytes, shown: str, lenient: bool) -> None:
    if not claim:
        return
    value = headers.get(name)
    if value == claim or (lenient and value is None):
        return
    # Headers are read as Latin-1; a claim in other letters arrives as its UTF-8 bytes.
    if value is not None and not claim.isascii() and value.encode("latin-1") == claim.encode("utf-8", "replace"):
        return
    raise _unauthenticated("header_mismatch", f"Header mismatch '{shown}'", shown)


def refuse_repeated(headers: Headers) -> None:
    """Whoever stands before or behind us may read the last of several values; we would read the first."""
    for name, shown in _WHO_CALLS.items():
        if headers.is_ambiguous(name):
            raise _unauthenticated("header_repeated", f"Header mismatch '{shown}'", shown)


def _unauthenticated(code: str, text: str, missing: str) -> Refusal:
    return Refusal(401, code, text, member="error", missing=missing)
