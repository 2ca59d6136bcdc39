"""The line to Redis or Valkey: one connection for each worker, held by tasks of its own.

Whoever asks lays down a command and waits for its reply; it never owns the connection. So a request that is cancelled
leaves nothing half read behind, replies cannot be mixed up, and commands of one turn of the event loop go out together.
When a reply is late, or nothing answers, the connection is closed, everybody who waits is told at once, and until it
stands again nobody waits at all.
"""

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

logger = logging.getLogger("torana.limits")

CONNECT_S = 1.0
"""Patience for a new connection. Nobody waits for it."""
RETRY_S, MAX_RETRY_S = 0.1, 3.0
"""Before the next attempt to connect: doubled each time, with full jitter on its upper half."""
STEADY_S = 10.0
"""A connection that lasts so long has come through; the next failure begins with the shortest wait again."""
TURNS = 8
"""Of the event loop that a reply is still given when it seems to be late."""
BUSY_S = 0.005
"""An event loop that is later than this has other things to do."""
MAX_WAITING = 10_000
"""Commands without a reply."""

Probe = Callable[[], Sequence[bytes | str | int]]
IsSound = Callable[[Any], bool]
"""Whether a reply is one to its command. Another one says that something else than a store answers."""


class LineDown(Exception):
    """No reply: `reason` is a word for metrics and logs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Line:
    """Commands out, replies in. `start` in the event loop, `aclose` at the end.

    timeout_s  from laying a command down to its reply
    probe      a command that has to work before the line counts as up: it reads and writes
    tell       called with True or False and a reason, whenever the line goes up or down
    trusted    authorities besides the system's, as PEM; for `rediss://`
    """

    def __init__(
        self, url: str, timeout_s: float, probe: Probe, tell: Callable[[bool, str], None], trusted: str = ""
    ) -> None:
        self._url = url
        self._trusted = trusted
        self._timeout_s = timeout_s
        self._probe = probe
        self._tell = tell
        self.is_up = False
        self._told: bool | None = None
        self._where: tuple[str, int] | None = None
        """The node of a cluster that it was sent to."""
        self._unsent: list[bytes] = []
        self._waiting: deque[tuple[asyncio.Future[Any], float, IsSound | None]] = deque()
        """Futures in the order of their commands, when each is late, and what its reply must be."""
        self._has_unsent = asyncio.Event()
        self._broken: asyncio.Future[str] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._connection: AbstractConnection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._first_try = asyncio.Event()
        """The first attempt to connect has ended, well or badly."""

    def start(self) -> None:
        import redis.asyncio.connection  # noqa: F401 now, and not while somebody waits for the first connection

        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def aclose(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    @property
    def is_starting(self) -> bool:
        """The first attempt to connect is under way: better a moment's wait than a count of one's own."""
        return not self._first_try.is_set()

    async def started(self) -> None:
        """Returns when that attempt has ended, or when a reply would be late."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._first_try.wait()

    def renew(self, reason: str) -> None:
        """End this connection, as if it had broken: the store does not know any more what was told on it."""
        self._break(reason)

    def send(self, *command: bytes | str | int, is_sound: IsSound | None = None) -> "asyncio.Future[Any]":
        """Without waiting: the reply comes to the future, whether or not anybody looks.

        The future raises LineDown, also for a command that the store refuses, and for a reply that is not sound.
        Whoever waits for it shields it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        future.add_done_callback(_looked_at)
        if not self.is_up or len(self._waiting) >= MAX_WAITING:
            future.set_exception(LineDown("down" if not self.is_up else "busy"))
            return future
        self._lay_down(command, future, is_sound)
        return future

    def _lay_down(
        self, command: Sequence[bytes | str | int], future: "asyncio.Future[Any]", is_sound: IsSound | None = None
    ) -> None:
        assert self._connection is not None
        self._unsent += self._connection.pack_command(*command)
        self._waiting.append((future, asyncio.get_running_loop().time() + self._timeout_s, is_sound))
        self._has_unsent.set()
        if self._alarm is None:
            self._set_alarm()

    def _set_alarm(self) -> None:
        """For the reply that has to come next."""
        next_one, late, _ = self._waiting[0]
        self._alarm = asyncio.get_running_loop().call_at(late, self._look_for_late, next_one, late, TURNS)

    def _look_for_late(self, next_one: "asyncio.Future[Any]", due: float, turns: int) -> None:
        """A reply is late when it has not been read although the event loop had the time to.

        Where the loop itself was busy, the command may have gone out late, or the reply may have been here for
        long: the store is not to blame. It has the time that was lost, and some turns of the loop, once more.
        """
        self._alarm = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        if self._waiting[0][0] is not next_one:
            self._set_alarm()
        elif turns:
            lost_s = min(loop.time() - due, self._timeout_s)
            again = loop.time() + (lost_s if lost_s > BUSY_S else 0.0)
            self._alarm = loop.call_at(again, self._look_for_late, next_one, again, turns - 1)
        else:
            self._break("timeout")

    def _break(self, reason: str) -> None:
        if self._broken is not None and not self._broken.done():
            self._broken.set_result(reason)
        self._fail_all(reason)

    def _fail_all(self, reason: str) -> None:
        """Everybody who waits is told now: not one waits for the connection to be closed."""
        self.is_up = False
        while self._waiting:
            future = self._waiting.popleft()[0]
            if not future.done():
                future.set_exception(LineDown(reason))

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            since = loop.time()
            try:
                reason = await self._live()
            finally:
                self._fail_all("closed")
            self._first_try.set()
            if reason != "moved":
                self._where = None  # that node may be gone; where the others are, the configured one knows
            failures = 1 if loop.time() - since > STEADY_S else failures + 1
            self._note(False, reason)
            longest_s = min(MAX_RETRY_S, RETRY_S * 2.0 ** min(failures, 10))
            # A node of the cluster that sends us elsewhere is no failure.
            await asyncio.sleep(0.0 if reason == "moved" and failures < 3 else longest_s * random.uniform(0.5, 1.0))  # noqa: S311 jitter

    async def _live(self) -> str:
        """One connection, from its beginning to its end; returns why it ended."""
        self._unsent.clear()
        self._has_unsent.clear()
        self._broken = asyncio.get_running_loop().create_future()
        tasks: list[asyncio.Task[str]] = []
        try:
            connection = self._connection = make_connection(self._url, self._where, self._trusted)
            async with asyncio.timeout(CONNECT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
            loop = asyncio.get_running_loop()
            tasks = [loop.create_task(self._write(connection)), loop.create_task(self._read(connection))]
            probed: asyncio.Future[Any] = loop.create_future()
            probed.add_done_callback(_looked_at)
            self._lay_down(self._probe(), probed)
            await asyncio.wait({probed, self._broken, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            ended = [task.result() for task in (self._broken, *tasks) if task.done()]
            if ended:
                return ended[0]
            probed.result()
            self.is_up = True
            self._note(True, "")
            self._first_try.set()
            await asyncio.wait({*tasks, self._broken}, return_when=asyncio.FIRST_COMPLETED)
            return next((task.result() for task in (self._broken, *tasks) if task.done()), "closed")
        except Exception as error:  # noqa: BLE001 whatever is wrong with the store, the line goes on
            return self._reason_of(error)
        finally:
            self.is_up = False
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:  # also where the server ends in this moment
                if self._connection is not None:
                    await _hang_up(self._connection)
                    self._connection = None

    async def _write(self, connection: "AbstractConnection") -> str:
        try:
            while True:
                await self._has_unsent.wait()
                self._has_unsent.clear()
                parts, self._unsent = self._unsent, []
                await connection.send_packed_command(b"".join(parts), check_health=False)
        except Exception as error:  # noqa: BLE001 as above
            return self._reason_of(error)

    async def _read(self, connection: "AbstractConnection") -> str:
        from redis.exceptions import ResponseError

        try:
            while True:
                failure: Exception | None = None
                reply: Any = None
                try:
                    reply = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
                except ResponseError as error:
                    failure = error
                if not self._waiting:
                    return "unasked"
                future, _, is_sound = self._waiting.popleft()
                if failure is None and (is_sound is None or is_sound(reply)):
                    if not future.done():
                        future.set_result(reply)
                    continue
                reason = "error" if failure is None else self._reason_of(failure)
                if not future.done():
                    future.set_exception(LineDown(reason))
                if reason != "wrongtype":  # that is about one key; everything else would meet the next command too
                    return reason
        except Exception as error:  # noqa: BLE001 as above
            return self._reason_of(error)

    def _reason_of(self, error: Exception) -> str:
        """A word for what is wrong, of a handful."""
        if isinstance(error, LineDown):
            return error.reason
        text = str(error)
        first = text.split(" ", 1)[0].upper()
        name = type(error).__name__
        if name == "MovedError" or first == "MOVED":
            self._where = _address_in(error, str(getattr(self._connection, "host", "")))
            return "moved"
        for words, reason in _REASONS:
            if first in words or name in words:
                return reason
        if "ACL failure in script" in text:
            return "auth"
        if "max number of clients" in text:
            return "maxclients"
        if "SSL" in text:
            return "tls"
        if isinstance(error, TimeoutError) or "imeout" in name:
            return "timeout"
        if isinstance(error, OSError) or name == "ConnectionError":
            return "closed" if "closed" in text.lower() else "unreachable"
        return "error"

    def _note(self, is_up: bool, reason: str) -> None:
        """One word for each change, none for a state that goes on."""
        if is_up != self._told:
            self._told = is_up
            self._tell(is_up, reason)


def make_connection(url: str, where: tuple[str, int] | None = None, trusted: str = "") -> "AbstractConnection":
    """One that is not open yet. Raises TypeError or ValueError for an address with options that there are not.

    where  the node to ask, in place of the address's own
    """
    from redis.asyncio.connection import Connection, SSLConnection, parse_url
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    members: dict[str, Any] = dict(parse_url(url))
    kind = members.pop("connection_class", Connection)
    members.pop("max_connections", None)  # of a pool; here is one connection
    if where is not None:
        members["host"], members["port"] = where
    if trusted and issubclass(kind, SSLConnection):
        members["ssl_ca_data"] = trusted
    return kind(  # type: ignore[no-any-return]
        **members
        | {
            "protocol": 2,
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_S,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
        }
    )


_REASONS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"LOADING", "BusyLoadingError"}), "loading"),
    (frozenset({"READONLY", "ReadOnlyError", "MASTERDOWN", "MasterDownError"}), "readonly"),
    (frozenset({"OOM", "OutOfMemoryError"}), "oom"),
    (frozenset({"MISCONF"}), "misconf"),
    (frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "AuthenticationError", "NoPermissionError", "AuthorizationError",
                "AuthenticationWrongNumberOfArgsError", "InvalidUsernamePasswordError"}), "auth"),
    (frozenset({"CLUSTERDOWN", "ClusterDownError", "TRYAGAIN", "TryAgainError", "ASK", "AskError", "CROSSSLOT"}),
     "cluster"),
    (frozenset({"BUSY", "NOSCRIPT", "NoScriptError"}), "script"),
    (frozenset({"WRONGTYPE"}), "wrongtype"),
    (frozenset({"MaxConnectionsError", "MaxClientsError"}), "maxclients"),
)  # fmt: skip


def _address_in(error: Exception, asked: str) -> tuple[str, int] | None:
    """Of `MOVED 1234 10.0.0.2:6379`, as redis-py has cut it; a node that names no host means the one that was asked."""
    host, port = getattr(error, "host", None), getattr(error, "port", None)
    host = asked if host in ("", "?") else host
    return (host, port) if isinstance(host, str) and host and isinstance(port, int) else None


async def _hang_up(connection: "AbstractConnection") -> None:
    try:
        await connection.disconnect(nowait=True)
    except Exception:
        logger.debug("a connection to the shared counts did not close well", exc_info=True)


def _looked_at(future: "asyncio.Future[Any]") -> None:
    """Nobody may have waited for it; that is no error."""
    if not future.cancelled():
        future.exception()
