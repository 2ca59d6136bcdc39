"""Bodies as they come: JSON decoded with care, of no more levels and values than anybody needs; errors as text."""

import re
from contextlib import suppress
from itertools import chain, compress, islice
from typing import Any, TypeVar

import msgspec

from torana.dialects.members import Members, finite
from torana.errors import Invalid, ProviderBroke

T = TypeVar("T")

MAX_DEPTH = 128
MAX_VALUES = 400_000
"""Lists, objects, members and commas of a request, lists and objects of an answer; so many take a tenth of a second."""
MAX_ESCAPES = 200_000
"""Of JSON in which half letters are mended: that takes 12 ms."""
BOM = b"\xef\xbb\xbf"
_NOTHING = frozenset({"", "null", "{}", "[]", '""'})
_json: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=finite)
_HIGH, _LOW, _HEX = rb"\\u[dD][89abAB]", rb"\\u[dD][c-fC-F]", rb"[0-9a-fA-F]{2}"
_lone_half = re.compile(
    rb"\\u[dD](?:[89abAB]%b(?!%b%b)|[c-fC-F]%b(?<!%b%b.{6}))" % (_HEX, _LOW, _HEX, _HEX, _HIGH, _HEX), re.DOTALL
)
"""In JSON without escaped backslashes: one more before it, and it would be text."""


def _look_for(signs: bytes) -> re.Pattern[bytes]:
    """Each of these signs that stands outside of texts, with all before it; and what is left."""
    each = re.escape(signs)
    return re.compile(rb'(?:"[^"]*+"?|[^"%b]++)*+(?:[%b]|\Z)' % (each, each))


_IN_REQUESTS, _IN_ANSWERS = b"[{:,", b"[{"
_looks = {signs: _look_for(signs) for signs in (_IN_REQUESTS, _IN_ANSWERS)}
_others = {signs: bytes(set(range(256)) - set(signs)) for signs in _looks}
_holders = frozenset({dict, list})
_is_object, _is_list = frozenset({dict}).__contains__, frozenset({list}).__contains__
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
    if data.count(b"\\") > MAX_ESCAPES or b"\0" in data:
        return data
    # No JSON holds a zero byte, so it may stand for escaped backslashes meanwhile.
    return _lone_half.sub(rb"\\ufffd", data.replace(rb"\\", b"\0")).replace(b"\0", rb"\\")


def decode_answer(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """What a provider said; raises ProviderBroke, and nothing else, for anything that cannot be."""
    if is_crowded(data, _IN_ANSWERS):
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
        members = None if is_crowded(body) else decode_mended(_json, body)
    except _UNREADABLE:
        members = None
    if not isinstance(members, dict) or _is_too_deep(members):
        raise Invalid((), "JSON decode error", "json_invalid")
    return members


def is_crowded(data: bytes, signs: bytes = _IN_REQUESTS) -> bool:
    """True for more than MAX_VALUES: a few MiB can hold millions, which take a second and half a GiB."""
    if len(data) <= MAX_VALUES or not _may_be_crowded(data, signs):
        return False
    if data.count(b"\\") > MAX_VALUES * 10:
        return True
    # Most of those signs may stand in texts, whose ends are plain to see without escapes. Few signs part few texts.
    bare = data.replace(rb"\\", b"").replace(rb"\"", b"")
    is_full_of_texts = bare.count(b'"') > MAX_VALUES * 4
    return is_full_of_texts or next(islice(_looks[signs].finditer(bare), MAX_VALUES, None), None) is not None


def _may_be_crowded(data: bytes, signs: bytes) -> bool:
    """False spares a closer look. Dropping all but the signs takes 0.8 ms a MiB; so does `count`, for each of them."""
    found, step = 0, 1024 * 1024
    for start in range(0, len(data), step):
        found += len(data[start : start + step].translate(None, _others[signs]))
        if found > MAX_VALUES:
            return True
    return False


def _is_too_deep(value: Any) -> bool:
    """True for more than MAX_DEPTH levels. Level by level, and never item by item: agents send thousands of them."""
    level = [value]
    for _ in range(MAX_DEPTH):
        kinds = list(map(type, level))
        if _holders.isdisjoint(kinds):
            return False
        objects, lists = compress(level, map(_is_object, kinds)), compress(level, map(_is_list, kinds))
        level = [*chain.from_iterable(map(dict.values, objects)), *chain.from_iterable(lists)]
    return not _holders.isdisjoint(map(type, level))


def plain_text(body: bytes) -> str:
    """An error body that has none of the shapes we know, where people can read it; pages of proxies say nothing."""
    try:
        text = body.decode().strip()
    except UnicodeDecodeError:
        return ""
    return "" if text.startswith("<") or text in _NOTHING or not " ".join(text.split()).isprintable() else text
