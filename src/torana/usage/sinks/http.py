"""Batches over HTTP: as CloudEvents, or as OTLP log records. JSON both, without anybody's SDK.

Source: CloudEvents 1.0, JSON format 4.1 (batch) and HTTP binding 3.3; OTLP 1.x specification, OTLP/HTTP, and its
`logs` service.
"""

from collections.abc import Callable, Mapping

import msgspec

from torana.errors import ProviderError, ProviderUnreachable
from torana.transport import Transport, WireRequest
from torana.usage.event import decode_event, id_of, text_of, time_of
from torana.usage.folder import Position
from torana.usage.sinks.sink import Batch, SinkDown, SinkRefused

EVENT_TYPE = "torana.usage.call.v1"
MAX_ANSWER_BYTES = 64 * 1024

_BAD_RECORD = frozenset((400, 413, 415, 422))
"""Answers that are about what was sent. All others are about the receiver, or about our right to send."""

WriteBody = Callable[[list[bytes]], bytes]
ReadAnswer = Callable[[bytes, int], None]
"""(body of a 2xx answer, records sent): raises SinkRefused where the receiver has taken none of them."""


class HttpSink:
    """POSTs each batch; a 2xx means that the receiver has it."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        headers: Mapping[str, str],
        write: WriteBody,
        read: ReadAnswer,
        *,
        timeout_s: float,
    ) -> None:
        self._transport = transport
        self._url = url
        self._headers = headers
        self._write = write
        self._read = read
        self._timeout_s = timeout_s

    async def send(self, batch: Batch) -> None:
        request = WireRequest(url=self._url, headers=self._headers, body=self._write(batch.events))
        try:
            answer = await self._transport.send(request, first_byte_s=self._timeout_s, idle_s=self._timeout_s)
            try:
                body = await answer.read_all(MAX_ANSWER_BYTES)
            finally:
                answer.close()
        except ProviderUnreachable as error:
            raise SinkDown(str(error), is_ambiguous=False) from error
        except ProviderError as error:
            raise SinkDown(str(error), is_ambiguous=True) from error
        status = answer.status
        if 200 <= status < 300:
            self._read(body, len(batch.events))
        elif status in _BAD_RECORD:
            raise SinkRefused(f"status {status}: {body[:200].decode('utf-8', 'replace')}")
        else:
            pause = answer.headers.get("retry-after", "")
            raise SinkDown(
                f"status {status}",
                is_ambiguous=status >= 500,
                retry_after_s=float(pause) if pause.isdecimal() and len(pause) < 6 else None,
            )

    async def position(self, folder: str) -> Position | None:
        del folder
        return None

    async def aclose(self) -> None:
        pass


def cloud_events(source: str) -> WriteBody:
    """A batch in the JSON format of CloudEvents; the record is `data`, its id the event's."""
    head = b'{"specversion":"1.0","type":"%b","source":%b,"datacontenttype":"application/json","id":"' % (
        EVENT_TYPE.encode(),
        msgspec.json.encode(source),
    )

    def write(events: list[bytes]) -> bytes:
        return b"[" + b",".join([_cloud_event(head, event) for event in events]) + b"]"

    return write


def _cloud_event(head: bytes, event: bytes) -> bytes:
    return b'%b%b","time":"%b","data":%b}' % (head, id_of(event), text_of(event, b"ended_at").encode(), event)


def read_nothing(body: bytes, records: int) -> None:
    """The status has said it all."""


def otlp_logs(resource: Mapping[str, str]) -> WriteBody:
    """Log records, one a usage record: the figures as attributes, the whole record as the body."""
    attributes = [_attribute(name, value) for name, value in resource.items()]

    def write(events: list[bytes]) -> bytes:
        scope = {"scope": {"name": "torana.usage"}, "logRecords": [_log_record(event) for event in events]}
        return msgspec.json.encode({"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": [scope]}]})

    return write


_RENAMED = {
    "model": "torana.model",
    "upstream_model": "gen_ai.request.model",
    "provider": "gen_ai.provider.name",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "error_code": "error.type",
}
"""Members that OpenTelemetry's conventions for generative AI have a name for."""


def _log_record(event: bytes) -> dict[str, object]:
    found = decode_event(event)
    attributes = [
        _attribute(_RENAMED.get(name, f"torana.{name}"), value)
        for name, value in msgspec.structs.asdict(found).items()
        if value not in ("", None, ()) and isinstance(value, (str, bool, int, float))
    ]
    nanoseconds = str(round(time_of(event) * 1000) * 1_000_000)
    return {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        "severityNumber": 9,
        "severityText": "INFO",
        "eventName": EVENT_TYPE,
        "body": {"stringValue": event.decode()},
        "attributes": attributes,
    }


def _attribute(name: str, value: object) -> dict[str, object]:
    # In OTLP's JSON a 64-bit integer is a text.
    if isinstance(value, bool):
        typed: dict[str, object] = {"boolValue": value}
    elif isinstance(value, int):
        typed = {"intValue": str(value)}
    elif isinstance(value, float):
        typed = {"doubleValue": value}
    else:
        typed = {"stringValue": str(value)}
    return {"key": name, "value": typed}


class _PartialSuccess(msgspec.Struct, frozen=True, rename="camel"):
    rejected_log_records: int | str | None = 0
    error_message: str | None = ""


class _ExportAnswer(msgspec.Struct, rename="camel"):
    partial_success: _PartialSuccess = _PartialSuccess()


def read_export(body: bytes, records: int) -> None:
    """A receiver of OTLP says in a 200 that it has taken some of the records only."""
    try:
        told = msgspec.json.decode(body or b"{}", type=_ExportAnswer).partial_success
        rejected = int(told.rejected_log_records or 0)
    except (msgspec.DecodeError, ValueError):
        return
    if rejected > 0:
        # Which ones it does not say, so they are looked for by halves. What it had taken comes again, by the same id.
        raise SinkRefused(f"{rejected} of {records} rejected: {(told.error_message or '')[:200]}")
