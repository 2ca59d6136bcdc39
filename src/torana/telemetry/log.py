"""What is written to stdout: JSON lines, or key=value, and nothing else.

Two ways in. Everything rare goes through stdlib logging and the handler here; the one access line a
request goes straight to the sink. Both leave masked. Prompts and answers have no business in either:
who may log them (contract 15) is decided where they are known.
"""

import json
import logging
import traceback
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from torana.json_lines import one_line
from torana.settings import LogSettings
from torana.telemetry.access_line import AccessLine
from torana.telemetry.redaction import Redactor
from torana.telemetry.sink import LogSink

__all__ = ["AccessLine", "Log", "LogSink", "install", "request_id"]

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Set by the entrance for the length of a request; every line written meanwhile carries it."""

_NO_FACTS: Mapping[str, Any] = {}
_RECORD_MEMBERS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FREE_TEXTS = frozenset(("exception_message", "exception_backtrace"))
_DETAILS = ("http_exception_details", "auth_error_details", "refusal_missing")
_NAMED_DETAILS = frozenset(_DETAILS)
"""Facts that may name what a client sent: masked alone, which is cheap, for refusals come in floods."""
MOST_REMEMBERED = 128
"""Letters of a detail whose masked form is kept."""


class Log:
    """The way to the sink, in the format and from the level on that the settings ask for."""

    def __init__(self, settings: LogSettings, sink: LogSink, secrets: Iterable[str] = ()) -> None:
        self.redactor = Redactor(secrets)
        self._mask_again = lru_cache(1024)(self.redactor.text)
        self.sink = sink
        self.level = logging.getLevelNamesMapping()[settings.level.upper()]
        self._as_json = settings.as_json
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        self._is_shown = {name: level >= self.level for name, level in _LEVELS.items()}

    def write_access(self, line: AccessLine, facts: Mapping[str, Any] = _NO_FACTS) -> None:
        """One request's line. `facts` are further members, by names that the line has not."""
        written = self.encode_access(line, facts)
        if written is not None:
            self.sink.write(written)

    def encode_access(self, line: AccessLine, facts: Mapping[str, Any] = _NO_FACTS) -> bytes | None:
        """As `write_access` would write it; None where it would not."""
        if not self._is_shown[line.level]:
            return None
        if not _NAMED_DETAILS.isdisjoint(facts):
            masked = {name: self._mask(str(facts[name])) for name in _DETAILS if name in facts}
            facts = {**facts, **masked}
        raw = self._encode(line)
        if facts:
            raw = raw[:-1] + b"," + self._encode(facts)[1:]
        if _may_hold_secrets(f"{line.url} {line.correlation_id}") or not _FREE_TEXTS.isdisjoint(facts):
            raw = self._encode(self.redactor.value(msgspec.json.decode(raw)))
        return raw if self._as_json else _as_pairs(msgspec.json.decode(raw))

    def masked(self, texts: dict[str, str]) -> dict[str, str]:
        """A client's own texts as they may stand in a line."""
        masked: dict[str, str] = self.redactor.value(texts) if _may_hold_secrets(" ".join(texts.values())) else texts
        return masked

    def _mask(self, detail: str) -> str:
        # Refusals come in floods, and nearly all of them in the same few words.
        return self._mask_again(detail) if len(detail) <= MOST_REMEMBERED else self.redactor.text(detail)

    def write_record(self, record: logging.LogRecord) -> None:
        """One line of stdlib logging."""
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "type": "mlops",
            "stage": "main",
        }
        if current := request_id.get():
            line["correlation_id"] = current
        for name, value in vars(record).items():
            if name not in _RECORD_MEMBERS:
                line.setdefault(name, value)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line["exception_class"] = type(error).__name__
            line["exception_message"] = str(error)
            line["exception_backtrace"] = "".join(traceback.format_exception(error))
        line = self.redactor.value(line)
        self.sink.write(self._encode(line) if self._as_json else _as_pairs(line))

    def _encode(self, line: Any) -> bytes:
        try:
            return one_line(self._encoder.encode(line))
        except UnicodeEncodeError:  # half a surrogate pair, from a client's text; msgspec has no escape for it
            return json.dumps(msgspec.to_builtins(line, enc_hook=str)).encode()

    def close(self) -> None:
        """Take the handler out of stdlib logging again, and write what is waiting."""
        root = logging.getLogger()
        for handler in [handler for handler in root.handlers if isinstance(handler, _Handler) and handler.log is self]:
            root.removeHandler(handler)
        logging.captureWarnings(False)
        self.sink.close()


class _Handler(logging.Handler):
    """stdlib logging → Log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.log.write_record(record)
        except Exception:  # noqa: BLE001  a line that cannot be written must not fail the request that wrote it
            self.log.sink.write(b'{"level":"error","logger":"torana.telemetry","message":"a log line was lost"}')


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def install(settings: LogSettings, sink: LogSink, secrets: Iterable[str] = ()) -> Log:
    """Lead all of stdlib logging to `sink`: ours from the set level on, libraries' from warnings on.

    secrets  values that must never be shown: every key of the settings
    """
    log = Log(settings, sink, secrets)
    root = logging.getLogger()
    root.addHandler(_Handler(log))
    root.setLevel(max(log.level, logging.WARNING))
    logging.getLogger("torana").setLevel(log.level)
    logging.captureWarnings(True)
    return log


def _may_hold_secrets(told: str) -> bool:
    """Looking for what credentials begin with is cheaper than masking them."""
    return "?" in told or "eyJ" in told or "sk-" in told or "earer " in told or "asic " in told or "glpat-" in told


def _as_pairs(line: Mapping[str, Any]) -> bytes:
    """`key=value key="with blanks"`; always one line."""
    return " ".join(f"{name}={_pair_value(value)}" for name, value in line.items() if value is not None).encode()


def _pair_value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    is_plain = text.isprintable() and text and not any(letter in text for letter in ' "=')
    return text if is_plain else json.dumps(text, ensure_ascii=not text.isprintable())
