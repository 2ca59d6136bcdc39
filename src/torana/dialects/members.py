"""Members of JSON bodies: read strictly, kept where we have no word for them."""

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from sys import float_info
from typing import Any

import msgspec
from msgspec import UNSET

from torana.chat import ChatRequest, Usage
from torana.errors import Invalid

Members = dict[str, Any]
Loc = tuple[str | int, ...]

MAX_TOKENS = 10**12
"""No call has used that many; a provider that says more is mistaken."""

_USUAL_TIERS = frozenset(
    (
        *("", "auto", "default", "standard", "on_demand", "traffic_type_unspecified", "service_tier_unspecified"),
        *("global", "not_available"),  # places of Anthropic's
    )
)
_MAX_TIER_CHARS = 32
_OBJECT = frozenset({dict})

_WORDS = (
    *("messages", "max_tokens", "temperature", "top_p", "top_k", "stop"),
    *("tools", "tool_choice", "parallel_tool_calls", "answer_schema", "wants_json", "reasoning"),
    *("choices", "user", "fill_in"),
)


_USUAL: Members = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "min_p": 0,
    "top_logprobs": 0,
    "modalities": ["text"],
    "verbosity": "medium",
    "truncation": "disabled",
}
"""What members say that many clients write whether or not anybody chose: the same as nothing."""

_NO_ARGUMENTS = ("", "null")
"""What servers, and clients that read theirs, write for none."""


def finite(text: str) -> float:
    """A number with a point or an exponent, for decoders of what nobody has a type for; raises ValueError beyond all.

    Their own way takes 12 µs for each one near the largest or the smallest: `1e308` and a comma are six bytes.
    """
    number = float(text)
    if not isfinite(number):
        raise ValueError("number out of range")
    return number


_objects = msgspec.json.Decoder(Members, float_hook=finite)


def read_tokens(value: Any) -> int | None:
    """A count of tokens; None where it is none that can be."""
    if type(value) is not int:
        if not isinstance(value, float) or not value.is_integer():
            return None  # what is true or false is an int, too
        value = int(value)
    return value if 0 <= value <= MAX_TOKENS else None


def read_tiers(*told: Any) -> tuple[str, ...]:
    """What of a provider's service was not the usual, of all that it told: see `Usage.tiers`."""
    tiers: tuple[str, ...] = ()
    for word in told:
        if not isinstance(word, str) or word in _USUAL_TIERS or len(word) > _MAX_TIER_CHARS:
            continue  # nearly always
        if (tier := word.lower()) not in _USUAL_TIERS:
            tiers += (tier,)
    return tiers


def arguments_text(value: Any) -> str:
    """Arguments of a call as text; some servers write the object itself, and none for no arguments."""
    if isinstance(value, str) or value is None:
        return value or ""
    return msgspec.json.encode(value).decode()


def read_arguments(text: str) -> Members:
    """Arguments of a call as the object that most formats demand."""
    try:
        return {} if text in _NO_ARGUMENTS else _objects.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # A call that was cut by its token limit; Anthropic's documents suggest this shape.
        return {"INVALID_JSON": text}


def sound_arguments(text: str) -> str:
    """The same as text: as the model wrote it, if that was an object."""
    read = read_arguments(text)
    return msgspec.json.encode(read).decode() if not read or read.get("INVALID_JSON") == text else text


def suspect(before: Usage | None) -> Usage:
    """What was known of usage before the provider said what cannot be."""
    return msgspec.structs.replace(before or Usage(), is_suspect=True)


def need_text(members: Members, name: str, loc: Loc = ()) -> str:
    value = members.get(name)
    if isinstance(value, str):
        return value
    if name not in members:
        raise Invalid((*loc, name), "Field required", "missing")
    raise Invalid((*loc, name), "Input should be a valid string", "string_type")


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
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > float_info.max:
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
    if not _OBJECT.issuperset(map(type, rows)):
        number = next(at for at, row in enumerate(rows) if not isinstance(row, dict))
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


class _Kept(Mapping[str, Any]):
    """What writing a client's request again would lose, change or add; worked out when somebody writes it again.

    Mostly nobody does: it goes on as it came, or in another dialect.
    """

    __slots__ = ("_found", "_write", "sent")

    def __init__(self, sent: Members, write: Callable[[], Members]) -> None:
        self.sent = sent
        self._write = write
        self._found: Members | None = None

    def _all(self) -> Members:
        if self._found is None:
            written = self._write()
            self._found = {
                name: value
                for name, value in self.sent.items()
                if name != "model" and (name not in written or written[name] != value)
            }
            self._found |= {name: UNSET for name in written if name not in self.sent}
        return self._found

    def __getitem__(self, name: str) -> Any:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def keep_extra(
    chat: ChatRequest, dialect: str, members: Members, write: Callable[[], Members], spoken: frozenset[str]
) -> ChatRequest:
    """`chat` with every member that writing it again would lose, change or add.

    members  as the client sent them
    write    the same request, written from our words alone
    spoken   names of the members that our words stand for, or whose loss changes no answer
    """
    unspoken = tuple(name for name, value in members.items() if name not in spoken and not _says_nothing(name, value))
    extra = _Kept(members, write)
    return msgspec.structs.replace(chat, extra=extra, extra_dialect=dialect, unspoken=unspoken + chat.unspoken)


def said_in(chat: ChatRequest, dialect: str) -> Mapping[str, Any]:
    """The members as a client of this dialect sent them, or a prompt's author named them for any."""
    if chat.extra_dialect not in ("", dialect):
        return {}
    return chat.extra.sent if isinstance(chat.extra, _Kept) else chat.extra


def _says_nothing(name: str, value: Any) -> bool:
    return value is None or value is False or value in ([], {}, "", _USUAL.get(name))


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
    the same; of those that say what was changed since, the words win.

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
            for name in filter(spoken.__contains__, extra):
                tried = {each: value for each, value in {**members, name: extra[name]}.items() if value is not UNSET}
                if _say_the_same(read(tried), chat):
                    members = tried
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
