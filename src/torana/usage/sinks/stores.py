"""Redis streams and PostgreSQL tables. Their libraries are imported when there is such a sink, and not before."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torana.usage.event import decode_event, id_of
from torana.usage.folder import Position
from torana.usage.sinks.sink import CLOSE_S, Batch, SinkDown, SinkRefused

TABLE_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?")


class _StoreSink:
    """One connection, used by one thread."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"usage-{name}")
        self._connection: Any = None
        self._is_closed = False

    async def send(self, batch: Batch) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store, batch.events)

    async def position(self, folder: str) -> Position | None:
        del folder
        return None

    async def aclose(self) -> None:
        """Idempotent. A store that is silent is not waited for."""
        if self._is_closed:
            return
        self._is_closed = True
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        await asyncio.wait((closing,), timeout=CLOSE_S)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _store(self, events: list[bytes]) -> None:
        """Raises SinkDown, SinkRefused."""
        raise NotImplementedError


class RedisStream(_StoreSink):
    """XADD, one entry a record: fields `id` and `event`. The stream may hold an id twice; readers drop the second.

    max_length  the stream is cut to about so many entries; 0: never
    trusted     authorities besides the system's, as PEM; for `rediss://`
    """

    def __init__(self, url: str, stream: str, *, max_length: int, timeout_s: float, trusted: str = "") -> None:
        # Now: threads that import it at the same time find it half made, and so may the one of the shared counts.
        import redis

        super().__init__("redis")
        self._redis = redis
        self._url = url
        self._stream = stream
        self._max_length = max_length
        self._members: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        if trusted and url.lower().startswith("rediss:"):
            self._members["ssl_ca_data"] = trusted
        self._where: dict[str, str | int] = {}
        """The node of a cluster that has the stream; nothing: the configured one."""

    def _store(self, events: list[bytes]) -> None:
        redis = self._redis
        try:
            if self._connection is None:
                self._connection = redis.Redis.from_url(self._url, **self._members)
                self._connection.connection_pool.connection_kwargs.update(self._where)
            self._connection.ping()
        except redis.RedisError as error:
            if self._where:  # that node may be gone; where the others are, the configured one knows
                self._where = {}
                self._close()
            raise SinkDown(str(error), is_ambiguous=False) from error
        pipeline = self._connection.pipeline(transaction=True)
        for event in events:
            pipeline.xadd(
                self._stream,
                {b"id": id_of(event), b"event": event},
                maxlen=self._max_length or None,
                approximate=True,
            )
        try:
            pipeline.execute()
        except redis.exceptions.MovedError as moved:  # a cluster's other node has the stream: the next try goes there
            self._where = {"host": moved.host, "port": moved.port}
            self._close()
            raise SinkDown(f"moved to {moved.host}:{moved.port}", is_ambiguous=False) from moved
        except redis.ResponseError as error:
            # Of the store, not of a record: out of memory, a replica, another type of key.
            reason = str(error).rpartition("caused error: ")[2]  # before it stands the record
            raise SinkDown(reason, is_ambiguous=False) from error
        except redis.RedisError as error:
            raise SinkDown(str(error), is_ambiguous=True) from error


class PostgresTable(_StoreSink):
    """One row a record, by its id: a second one of the same id changes nothing.

    table  made where it is missing, with its schema's name if it is not the first of the search path
    """

    def __init__(self, dsn: str, table: str, *, timeout_s: float) -> None:
        super().__init__("postgres")
        if not TABLE_NAME.fullmatch(table):
            raise ValueError(f"{table!r} is no name of a table")
        self._dsn = dsn
        self._table = table
        self._timeout_s = timeout_s

    def _store(self, events: list[bytes]) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise SinkDown("the extra [postgres] is not installed: run `make extras`", is_ambiguous=False) from error
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._connect(psycopg)
        except psycopg.Error as error:
            raise SinkDown(str(error), is_ambiguous=False) from error
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.executemany(_INSERT.format(table=self._table), [_row(event) for event in events])
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise SinkRefused(str(error)) from error
        except psycopg.Error as error:
            self._connection.close()
            raise SinkDown(str(error), is_ambiguous=True) from error

    def _connect(self, psycopg: Any) -> Any:
        told = psycopg.conninfo.conninfo_to_dict(self._dsn)
        connection = psycopg.connect(
            **_LIVELY | told | {"connect_timeout": max(2, int(self._timeout_s))}, autocommit=True
        )
        try:
            self._make_ready(connection)
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def _make_ready(self, connection: Any) -> None:
        # Not as an option of the connection: the address may have its own.
        connection.execute("SELECT set_config('statement_timeout', %s, false)", (str(int(self._timeout_s * 1000)),))
        with connection.transaction():
            # Of two that make a missing table at the same moment one fails, whatever IF NOT EXISTS says.
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (self._table,))
            # Who may write to a table need not be allowed to make one.
            if connection.execute("SELECT to_regclass(%s)", (self._table,)).fetchone() == (None,):
                connection.execute(_CREATE.format(table=self._table))


_LIVELY = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""A server that vanished with its network says nothing: the system's own patience with it is two hours."""

_CREATE = """CREATE TABLE IF NOT EXISTS {table} (
    id uuid PRIMARY KEY, ended_at timestamptz NOT NULL, instance text NOT NULL, realm text NOT NULL,
    usr text NOT NULL, feature text NOT NULL, unit_primitive text NOT NULL, model text NOT NULL,
    provider text NOT NULL, status text NOT NULL, source text NOT NULL, input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL, cache_read_tokens bigint NOT NULL, cache_write_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL, cost_usd numeric, event jsonb NOT NULL)"""

_COLUMNS = (
    "id", "ended_at", "instance", "realm", "user", "feature", "unit_primitive", "model", "provider", "status", "source",
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_usd",
)  # fmt: skip
_INSERT = "INSERT INTO {table} VALUES (%s" + ", %s" * len(_COLUMNS) + ") ON CONFLICT (id) DO NOTHING"  # noqa: S608
"""`table` has passed TABLE_NAME."""


_NUL = re.compile(rb"\\u0000|\\.")
"""Its escape, or any other: the last backslash of a text may stand before the letters `u0000`."""


def _row(event: bytes) -> list[object]:
    if rb"\u0000" in event:
        # Clients choose names of models; JSON may hold this letter, and PostgreSQL nowhere.
        event = _NUL.sub(lambda escape: rb"\ufffd" if escape[0] == rb"\u0000" else escape[0], event)
    found = decode_event(event)
    return [*(getattr(found, name) for name in _COLUMNS), event.decode()]
