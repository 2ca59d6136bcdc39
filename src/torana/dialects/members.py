"""Members of JSON bodies: decoded with care, read strictly, kept where we have no word for them."""

import re
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from torana.chat import ChatRequest, Usage
from torana.errors import Invalid, ProviderBroke

T = TypeVar("T")
Members = dict[str, Any]
Loc = tuple[str | int, ...]

MAX_DEPTH = 128
MAX_VALUES = 400_000
"""Lists, objects, members and commas of a request, lists and objects of an answer; so many take a tenth of a second."""
MAX_ESCAPES = 200_000
"""Of JSON in which half letters are mended; finding them takes a call for each escape."""
BOM = b"\xef\xbb\xbf"
_NOTHING = frozenset({"", "null", "{}", "[]", '""'})
MAX_TOKENS = 10**12
"""No call has used that many; a provider that says more is mistaken."""

_WORDS = (
    *("messages", "max_tokens", "temperature", "top_p", "top_k", "stop"),
    *("tools", "tool_choice", "parallel_tool_calls", "answer_schema", "wants_json", "reasoning"),
    *("choices", "user", "fill_in"),
)
_json: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_escape = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.")


def _look_for(signs: bytes) -> re.Pattern[bytes]:
    """Each of these signs that stands outside of texts, with all before it; and what is left."""
    each = re.escape(signs)
    return re.compile(rb'(?:"[^"]*+"?|[^"%b]++)*+(?:[%b]|\Z)' % (each, each))


_IN_REQUESTS, _IN_ANSWERS = b"[{:,", b"[{"
_looks = {signs: _look_for(signs) for signs in (_IN_REQUESTS, _IN_ANSWERS)}
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


def decode_mended(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """As `decoder` reads it, or what it makes of it with half letters mended; raises what `data` itself raised.

    Some servers cut a letter outside the BMP in two and send each half as an escape.
    """
    try:
        return decoder.decode(data)
    except _UNREADABLE:
        if rb"\u" in data:
            with suppress(*_UNREADABLE):
                return decoder.decode(mend_half_letters(data))
        raise


def mend_half_letters(data: bytes) -> bytes:
    """The same JSON, each escape of half a letter read as U+FFFD; left as it is beyond MAX_ESCAPES."""
    if data.count(b"\\") > MAX_ESCAPES:
        return data
    return _escape.sub(_mend_surrogate, data)


def decode_answer(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """What a provider said; raises ProviderBroke, and nothing else, for anything that cannot be."""
    if len(data) > MAX_VALUES and _is_crowded(data, _IN_ANSWERS):
        raise ProviderBroke("an answer of more parts than any has")
    try:
        # JSON may not begin with a mark, but readers may pass over it (RFC 8259, 8.1).
        return decode_mended(decoder, data.removeprefix(BOM))
    except _UNREADABLE as error:
        # The text may quote the answer; the kind says enough, and holds nothing of what came.
        cause = type(error).__name__
    raise ProviderBroke(f"not the JSON that this dialect promises: {cause}")


def decode_request(body: bytes) -> Members:
    """A client's JSON object; raises Invalid for anything else, more than MAX_DEPTH levels or MAX_VALUES included."""
    try:
        members = None if _is_crowded(body, _IN_REQUESTS) else decode_mended(_json, body)
    except _UNREADABLE:
        members = None
    if not isinstance(members, dict) or _is_too_deep(members, body):
        raise Invalid((), "JSON decode error", "json_invalid")
    return members


def _is_crowded(data: bytes, signs: bytes) -> bool:
    """True for more than MAX_VALUES: a few MiB can hold millions, which take a second and half a GiB."""
    if not _may_be_crowded(data, signs):
        return False
    if data.count(b"\\") > MAX_VALUES * 10:
        return True
    # Most of those signs may stand in texts, whose ends are plain to see without escapes. Few signs part few texts.
    bare = data.replace(rb"\\", b"").replace(rb"\"", b"")
    is_full_of_texts = bare.count(b'"') > MAX_VALUES * 4
    return is_full_of_texts or next(islice(_looks[signs].finditer(bare), MAX_VALUES, None), None) is not None


def _may_be_crowded(data: bytes, signs: bytes) -> bool:
    """False spares a closer look: counting signs costs next to nothing where they are few."""
    found, step = 0, 1024 * 1024
    for start in range(0, len(data), step):
        found += sum(data.count(sign, start, start + step) for sign in signs)
        if found > MAX_VALUES:
            return True
    return False


def _mend_surrogate(match: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if len(match[0]) == 6 else match[0]


def _is_too_deep(value: Any, body: bytes) -> bool:
    """True for more than MAX_DEPTH levels; `value` is what `body` says."""
    if not _may_be_deep(body):
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                inner += item.values()
            elif kind is list:
                inner += item
        if not inner:
            return False
        level = inner
    return any(type(item) in (dict, list) for item in level)


def _may_be_deep(body: bytes) -> bool:
    """False spares the walk: so few openings cannot be too deep. Finding some of them costs little in a body of any
    length, counting them all takes 2 ms a MiB."""
    openings = 0
    for mark in (b"[", b"{"):
        at = body.find(mark)
        while at >= 0:
            openings += 1
            if openings > MAX_DEPTH:
                return True
            at = body.find(mark, at + 1)
    return False


def read_tokens(value: Any) -> int | None:
    """A count of tokens; None where it is none that can be."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS
    return value if is_count else None


def arguments_text(value: Any) -> str:
    """Arguments of a call as text; some servers write the object itself, and none for no arguments."""
    if isinstance(value, str) or value is None:
        return value or ""
    return msgspec.json.encode(value).decode()


def plain_text(body: bytes) -> str:
    """An error body that has none of the shapes we know, where people can read it; pages of proxies say nothing."""
    try:
        text = body.decode().strip()
    except UnicodeDecodeError:
        return ""
    return "" if text.startswith("<") or text in _NOTHING or not " ".join(text.split()).isprintable() else text


def suspect(before: Usage | None) -> Usage:
    """What was known of usage before the provider said what cannot be."""
    return msgspec.structs.replace(before or Usage(), is_suspect=True)


def need_text(members: Members, name: str, loc: Loc = ()) -> str:
    value = members.get(name)
    if name not in members:
        raise Invalid((*loc, name), "Field required", "missing")
    if not isinstance(value, str):
        raise Invalid((*loc, name), "Input should be a valid string", "string_type")
    return value


def find_text(members: Members, name: str, loc: Loc = ()) -> str:
    """The text, empty where the member is absent or null."""
    return "" if members.get(name) is None else need_text(members, name, loc)


def find_whole(members: Members, name: str) -> int | None:
    value = members.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise Invalid((name,), "Input should be a valid integer", "int_type")


def find_flag(members: Members, name: str) -> bool | None:
    value = members.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise Invalid((name,), "Input should be a valid boolean", "bool_type")


def find_number(members: Members, name: str) -> float | None:
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid((name,), "Input should be a valid number")
    return float(value)


def find_texts(members: Members, name: str) -> tuple[str, ...]:
    """A list of texts, or one text for a list of one."""
    value = members.get(name)
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Invalid((name,), "Input should be a list of strings", "list_type")
    return tuple(value)


def need_rows(members: Members, name: str, loc: Loc = ()) -> list[Members]:
    """A list of objects."""
    if name not in members:
        raise Invalid((*loc, name), "Field required", "missing")
    rows = members[name]
    if not isinstance(rows, list):
        raise Invalid((*loc, name), "Input should be a valid list", "list_type")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise Invalid((*loc, name, number), "Input should be an object", "dict_type")
    return rows


def find_rows(members: Members, name: str, loc: Loc = ()) -> list[Members]:
    return [] if members.get(name) is None else need_rows(members, name, loc)


def find_object(members: Members, name: str, loc: Loc = ()) -> Members:
    value = members.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid((*loc, name), "Input should be an object", "dict_type")
    return value


def keep_extra(
    chat: ChatRequest, dialect: str, members: Members, written: Members, spoken: frozenset[str]
) -> ChatRequest:
    """`chat` with every member that writing it again would lose, change or add.

    members  as the client sent them
    written  the same request written from our words alone
    spoken   names of the members that our words stand for, or whose loss changes no answer
    """
    extra = {
        name: value
        for name, value in members.items()
        if name != "model" and (name not in written or written[name] != value)
    }
    for name in written:
        if name not in members:
            extra[name] = UNSET
    unspoken = tuple(name for name, value in members.items() if name not in spoken and not _says_nothing(value))
    return msgspec.structs.replace(chat, extra=extra, extra_dialect=dialect, unspoken=unspoken + chat.unspoken)


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or value in ([], {}, "")


def with_extra(
    chat: ChatRequest,
    dialect: str,
    written: Members,
    read: Callable[[Members], ChatRequest],
    spoken: frozenset[str],
    *,
    stream: bool,
) -> Members:
    """`written` and what `chat.extra` adds to it in this dialect.

    Members that were read in this very dialect go out as they came, as long as our words still say
    the same; where a word was changed since, the words win.

    written  the request from our words alone
    read     the dialect's way back from members to words
    spoken   names of the members that our words stand for
    """
    if chat.extra_dialect not in ("", dialect):
        members = dict(written)
    else:
        # A null that came in a request is kept; one that a prompt's author wrote only names the member.
        extra = {name: value for name, value in chat.extra.items() if chat.extra_dialect or value is not None}
        members = {name: value for name, value in {**written, **extra}.items() if value is not UNSET}
        if chat.extra_dialect and not _say_the_same(read(members), chat):
            unspoken = {name: value for name, value in extra.items() if name not in spoken and value is not UNSET}
            members = {**unspoken, **written}
    if stream:
        members["stream"] = True
    elif members.get("stream"):
        del members["stream"]
    return members


def _say_the_same(one: ChatRequest, other: ChatRequest) -> bool:
    return all(getattr(one, word) == getattr(other, word) for word in _WORDS)


def unspoken_elsewhere(chat: ChatRequest, dialect: str) -> set[str]:
    """What `dialect` loses because another one has the only name for it."""
    return set(chat.unspoken) if chat.extra_dialect not in ("", dialect) else set()


def tell(lost: set[str]) -> tuple[str, ...]:
    return tuple(sorted(lost))
