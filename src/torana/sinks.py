"""From what sinks.yml says to receivers that are ready: the only place that knows both."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torana.catalog.records import SinkRecord
from torana.catalog.sink_file import is_sink_url
from torana.clock import Clock
from torana.errors import BadSetting
from torana.setting_values import check_key
from torana.settings import Secret, Settings
from torana.telemetry.metrics import Metrics
from torana.transport import Transport, extra_certificates
from torana.usage.delivery import Delivery, Pace
from torana.usage.rollup_schema import rollup_path
from torana.usage.sinks.files import LineSink, RotatingFile, write_stdout
from torana.usage.sinks.sink import Sink
from torana.usage.spool import Spool

if TYPE_CHECKING:
    from torana.usage.sinks.http import HttpSink

DAY_S = 86_400.0


class SinkMakers:
    """Makes the sinks of a catalogue, each when it is to begin."""

    def __init__(
        self, settings: Settings, transport: Transport, spool: Spool, clock: Clock, metrics: Metrics, gateway_id: str
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._spool = spool
        self._clock = clock
        self._metrics = metrics
        self._gateway_id = gateway_id

    def of(self, records: Iterable[SinkRecord]) -> Mapping[str, Callable[[], Delivery]]:
        """Name → how to start it. Raises BadSetting for a secret that is not there."""
        found: dict[str, Callable[[], Delivery]] = {}
        for record in records:
            if record.enabled:
                sink = self._sink(record)
                found[record.name] = partial(
                    Delivery,
                    record.name,
                    sink,
                    _pace(record),
                    self._spool,
                    self._clock,
                    self._metrics.sink(record.name),
                )
        return found

    def _sink(self, record: SinkRecord) -> Sink:
        match record.type:
            case "rollup":
                from torana.usage.sinks.rollup import RollupSink

                keep = record.keep
                path = Path(record.path) if record.path else rollup_path(self._settings.spool_path)
                days = {"minute": keep.minute, "hour": keep.hour, "day": keep.day}
                return RollupSink(path, {period: value * DAY_S for period, value in days.items()})
            case "file":
                return LineSink(RotatingFile(Path(record.path), record.max_bytes, record.keep_files).write)
            case "stdout":
                return LineSink(write_stdout)
            case "redis":
                from torana.usage.sinks.stores import RedisStream

                return RedisStream(
                    self._url(record) or self._shared_store(record),
                    record.stream,
                    max_length=record.max_length,
                    timeout_s=record.timeout_s,
                    trusted=extra_certificates(self._settings.transport),
                )
            case "postgres":
                from torana.usage.sinks.stores import PostgresTable

                return PostgresTable(self._url(record), record.table, timeout_s=record.timeout_s)
            case "http" | "otlp":
                return self._http(record)

    def _http(self, record: SinkRecord) -> "HttpSink":
        from torana.usage.sinks.http import HttpSink, cloud_events, otlp_logs, read_export, read_nothing

        is_otlp = record.type == "otlp"
        kind = "application/json" if is_otlp else "application/cloudevents-batch+json"
        headers = {"Content-Type": kind, **record.headers}
        if record.token_env:
            token = self._secret(record.token_env).reveal()
            check_key(record.token_env, token)
            headers["Authorization"] = f"Bearer {token}"
        resource = {"service.name": "torana", "service.instance.id": self._gateway_id}
        return HttpSink(
            self._transport,
            self._url(record),
            headers,
            otlp_logs(resource) if is_otlp else cloud_events(f"/torana/{self._gateway_id}"),
            read_export if is_otlp else read_nothing,
            timeout_s=record.timeout_s,
        )

    def _url(self, record: SinkRecord) -> str:
        if not record.url_env:
            return record.url
        url = self._secret(record.url_env).reveal()
        if not is_sink_url(record.type, url):
            raise BadSetting(
                record.url_env, f"is no address for the sink `{record.name}`", "expected scheme://host:port"
            )
        return url

    def _shared_store(self, record: SinkRecord) -> str:
        if not self._settings.limits.redis_url:
            raise BadSetting(
                "AIGW_REDIS_URL", "is not set", f"expected it, or `url` or `url_env` of the sink `{record.name}`"
            )
        return self._settings.limits.redis_url.reveal()

    def _secret(self, name: str) -> Secret:
        found = self._settings.usage.sink_secrets.get(name)
        if found is None:
            raise BadSetting(name, "is not set", "expected what sinks.yml asks for by this name")
        return found


def _pace(record: SinkRecord) -> Pace:
    is_here = record.type in ("rollup", "file")
    return Pace(
        batch=record.batch,
        linger_s=record.linger_s,
        retry_s=record.retry_s,
        retry_max_s=record.retry_max_s,
        tries=record.tries,
        dedupe_window_s=record.dedupe_window_s,
        regions=record.regions if record.regions is not None or is_here else (),
    )
