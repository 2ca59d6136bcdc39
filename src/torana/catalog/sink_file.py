"""`sinks.yml`: what is wrong with its items, beyond their shape."""

import os
import re
from collections.abc import Hashable, Iterator

from torana.catalog.document import Document
from torana.catalog.records import SinkRecord
from torana.setting_values import is_header, is_redis_url, is_url

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
_TABLE = re.compile(r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?", re.ASCII)
_SECRET = re.compile(r"AIGW_SINK__[A-Z0-9_]+", re.ASCII)
_SCHEMES = {
    "http": ("http", "https"),
    "otlp": ("http", "https"),
    "redis": ("redis", "rediss", "unix"),
    "postgres": ("postgresql", "postgres"),
}

_READERS = {"http": is_url, "otlp": is_url, "redis": is_redis_url}
_LEAST = (
    ("batch", 1),
    ("tries", 1),
    ("timeout_s", 0.01),
    ("retry_s", 0.001),
    ("retry_max_s", 0.001),
    ("linger_s", 0),
    ("dedupe_window_s", 0),
    ("max_length", 0),
    ("max_bytes", 1),
    ("keep_files", 0),
)
_LEAST_KEPT = (("minute", 0), ("hour", 0), ("day", 1))
"""Days. Without sums by the day nobody could ask for anything."""


def is_sink_url(kind: str, url: str) -> bool:
    """Whether sinks of this type can be told so; what a database is called by is for its own library to read."""
    return bool(_READERS.get(kind, bool)(url))


def target_of(record: SinkRecord) -> tuple[str, Hashable]:
    """The member that says where a sink writes, and what no other sink that is switched on may have equal: records
    would be there twice. Receivers that tell tenants apart by token or header are as many receivers."""
    url = record.url_env or record.url
    match record.type:
        case "file" | "rollup":  # nor may a file of lines be a database
            return "path", ("path", os.path.realpath(record.path) if record.path else "")
        case "stdout":
            return "type", "stdout"
        case "redis":
            return "stream", ("redis", url, record.stream)
        case "postgres":
            return "table", ("postgres", url, record.table)
        case "http" | "otlp":
            headers = tuple(sorted(record.headers.items()))
            return "url_env" if record.url_env else "url", (record.type, url, record.token_env, headers)


def wrong_sink(document: Document, record: SinkRecord, index: int) -> Iterator[str]:
    """One line for each problem of the item at `index`."""
    if not _NAME.fullmatch(record.name):
        yield document.problem(
            f"`{record.name[:80]}` is no name of a sink", "expected small letters, digits, _ and -", index, "name"
        )
    if record.type == "file" and not record.path:
        yield document.problem("type file has no `path`", "expected the name of a file", index)
    schemes = _SCHEMES.get(record.type)
    if schemes and record.url and record.url.partition(":")[0].lower() not in schemes:
        yield document.problem(
            f"`{record.url.partition(':')[0][:20]}` is no scheme of {record.type}",
            f"expected a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}",
            index,
            "url",
        )
    elif record.url and not is_sink_url(record.type, record.url):
        shown = "`url`" if "@" in record.url else f"`{record.url}`"
        yield document.problem(f"{shown} is no address", "expected scheme://host:port/path", index, "url")
    if schemes and not record.url and not record.url_env and record.type != "redis":
        yield document.problem(f"type {record.type} has no `url`", "expected `url` or `url_env`", index)
    for member in ("url_env", "token_env"):
        name = getattr(record, member)
        if name and not _SECRET.fullmatch(name):
            yield document.problem(f"`{name[:80]}` is not read", "expected AIGW_SINK__ and a name", index, member)
    if not _TABLE.fullmatch(record.table):
        yield document.problem("no name of a table", "expected `table` or `schema.table`", index, "table")
    for name, value in record.headers.items():
        if not is_header(name, value):
            yield document.problem(f"header `{name}` cannot be sent", "expected a name: one line", index, "headers")
    for member, least_days in _LEAST_KEPT:
        if getattr(record.keep, member) < least_days:
            yield document.problem(f"`{member}` is too small", f"expected {least_days} or more", index, "keep", member)
    for member, least in _LEAST:
        if getattr(record, member) < least:
            yield document.problem(f"`{member}` is too small", f"expected {least} or more", index, member)
