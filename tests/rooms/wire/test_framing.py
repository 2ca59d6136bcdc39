"""What a connection makes of bytes, however they are cut. No network: the bytes are handed over."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torana.errors import ProviderBroke, ProviderTimedOut
from torana.wire.connection import CLOSING_RACE_S, HIGH_WATER_BYTES, MAX_HEAD_BYTES, Connection

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TEXT = "größer – 10 €".encode()


class Loose(asyncio.Transport):
    """A transport that leads nowhere."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})
        self.written = b""
        self.is_aborted = False
        self.is_reading_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False


class Kept:
    """Remembers whether the connection was given back."""

    def __init__(self) -> None:
        self.released: list[Connection] = []

    def add(self, connection: Connection) -> None: ...

    def release(self, connection: Connection) -> None:
        self.released.append(connection)

    def forget(self, connection: Connection) -> None: ...


class LateLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


class Bench:
    """Connections without a network, each asked already."""

    def __init__(self) -> None:
        self.loop = LateLoop()
        self._ours, self._theirs = socket.socketpair()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()
        self.loop.close()

    def asked(self, method: bytes = b"POST") -> Connection:
        connection = Connection(Kept(), ("http", "x", 80, ""), self.loop)
        connection.connection_made(Loose(self._ours))
        connection.ask(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n", b"")
        return connection

    def fed(self, *pieces: bytes, method: bytes = b"POST") -> Connection:
        connection = self.asked(method)
        for piece in pieces:
            connection.data_received(piece)
        return connection


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def is_kept(connection: Connection) -> bool:
    connection.finish()
    assert isinstance(connection.keeper, Kept)
    return bool(connection.keeper.released)


def body_of(connection: Connection) -> bytes:
    return connection.take() if connection.chunks else b""


def chunks_of(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


WHOLE = {
    "length": (OK + b"Content-Length: %d\r\n\r\n%s" % (len(TEXT), TEXT), 200, TEXT, True),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "chunked": (CHUNKED + chunks_of(TEXT[:3], TEXT[3:]), 200, TEXT, True),
    "empty chunked": (CHUNKED + b"0\r\n\r\n", 200, b"", True),
    "extensions and trailers": (
        CHUNKED + b'2;a=b;c="d"\r\nok\r\n0;last\r\nX-Status: fine\r\nstatus: 1\r\n\r\n',
        200,
        b"ok",
        True,
    ),
    "upper-case sizes": (CHUNKED + b"00A\r\n0123456789\r\n0\r\n\r\n", 200, b"0123456789", True),
    "closing": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
    "HTTP/1.0 kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Status: no\r\n\r\n"
        + OK
        + b"Content-Length: 2\r\n\r\nok",
        200,
        b"ok",
        True,
    ),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", 302, b"", True),
    "upgrade offered": (OK + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_an_answer_is_the_same_however_it_is_cut(bench: Bench, name: str, step: int) -> None:
    data, status, body, keeps = WHOLE[name]

    connection = bench.fed(*(data[at : at + step] for at in range(0, len(data), step)))

    assert (connection.status, body_of(connection), connection.is_done) == (status, body, True)
    assert connection.failure is None
    assert "x-status" not in connection.headers  # neither an interim answer's nor a trailer
    assert "link" not in connection.headers
    assert is_kept(connection) == keeps


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_cut_loses_or_adds_a_byte(bench: Bench, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    body = b"".join(pieces)
    wire = data.draw(
        st.sampled_from((CHUNKED + chunks_of(*pieces), OK + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)))
    )
    cuts = sorted(data.draw(st.sets(st.integers(0, len(wire)), max_size=12)))

    connection = bench.fed(*(wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True) if a < b))

    assert (body_of(connection), connection.is_done, connection.failure) == (body, True, None)
    assert is_kept(connection)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("end", ["FIN", "lost"])
def test_an_answer_cut_anywhere_is_never_complete(bench: Bench, name: str, end: str) -> None:
    data = WHOLE[name][0]
    for at in range(len(data)):
        connection = bench.fed(data[:at]) if at else bench.asked()

        connection.eof_received() if end == "FIN" else connection.connection_lost(ConnectionResetError())

        assert not connection.is_done, at
        assert isinstance(connection.failure, ProviderBroke)


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n\r\n", OK + b"Connection: close\r\n\r\n", OK + b"\r\n"])
def test_a_body_without_a_length_ends_with_a_clean_close_alone(bench: Bench, head: bytes) -> None:
    closed, lost, dropped = (bench.fed(head + TEXT[:2], TEXT[2:]) for _ in range(3))

    closed.eof_received()
    lost.connection_lost(ConnectionResetError())
    dropped.connection_lost(None)

    assert (closed.is_done, body_of(closed), is_kept(closed)) == (True, TEXT, False)
    assert isinstance(lost.failure, ProviderBroke)
    assert isinstance(dropped.failure, ProviderBroke)
    assert not lost.is_done
    assert not dropped.is_done


@pytest.mark.parametrize("surplus", [b"H", b"x", OK, OK + b"Content-Length: 4\r\n\r\nevil", b"\0", b"\r\nX"])
@pytest.mark.parametrize("name", ["length", "chunked", "204", "304 with a length", "closing"])
def test_bytes_after_an_answer_never_become_the_next(bench: Bench, name: str, surplus: bytes) -> None:
    data, status, body, _ = WHOLE[name]
    at_once, soon = bench.fed(data + surplus), bench.fed(data, surplus)
    later = bench.fed(data)
    body_of(later)
    later.finish()

    later.data_received(surplus)

    for connection in (at_once, soon):
        assert (connection.status, body_of(connection), connection.failure) == (status, body, None)
        assert not is_kept(connection)
    assert later.transport is None


def test_an_answer_to_head_has_no_body_and_may_not_bring_one(bench: Bench) -> None:
    head = OK + b"Content-Length: 9\r\n\r\n"
    honest, wrong = bench.fed(head, method=b"HEAD"), bench.fed(head + b"123456789", method=b"HEAD")

    assert (honest.is_done, body_of(honest), is_kept(honest)) == (True, b"", True)
    assert (wrong.is_done, body_of(wrong), is_kept(wrong)) == (True, b"", False)


FAULTY = {
    "no HTTP": b"<html>hello</html>",
    "another protocol": b"SSH-2.0-OpenSSH_9\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 000": b"HTTP/1.1 000 OK\r\n\r\nok",
    "status above 599": b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok",
    "status in words": b"HTTP/1.1 two OK\r\n\r\n",
    "unknown version": b"HTTP/1.7 200 OK\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "negative length": OK + b"Content-Length: -2\r\n\r\nok",
    "length of 23 digits": OK + b"Content-Length: 99999999999999999999999\r\n\r\nok",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "gzip as transfer coding": OK + b"Transfer-Encoding: gzip\r\n\r\nok",
    "gzip in chunks": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks in gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 2\r\n\r\nok",
    "folded header": OK + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a header": OK + b"A: \0\r\nContent-Length: 2\r\n\r\nok",
    "chunk size in words": CHUNKED + b"two\r\nok\r\n0\r\n\r\n",
    "negative chunk size": CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
    "endless chunk size": CHUNKED + b"f" * 17 + b"\r\nok",
    "chunk longer than its size": CHUNKED + b"2\r\nokXX0\r\n\r\n",
    "chunk without CR": CHUNKED + b"2\nok\n0\n\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nzzz",
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("step", [1, 1000])
def test_what_is_no_http_is_a_failure_at_once(bench: Bench, name: str, step: int) -> None:
    data = FAULTY[name]

    connection = bench.fed(*(data[at : at + step] for at in range(0, len(data), step)))

    assert isinstance(connection.failure, ProviderBroke)
    assert not connection.is_done
    assert connection.transport is None  # closed, whoever reads


@given(pieces=st.lists(st.binary(min_size=1, max_size=60), max_size=6), prefix=st.sampled_from((b"", OK, CHUNKED)))
@settings(max_examples=150, deadline=None)
def test_garbage_raises_nothing_into_the_loop(bench: Bench, pieces: list[bytes], prefix: bytes) -> None:
    connection = bench.fed(*([prefix] if prefix else []), *pieces)
    connection.eof_received()
    connection.connection_lost(None)

    assert connection.is_done or connection.failure is not None
    assert connection.transport is None


def filled(size: int) -> bytes:
    """A whole answer with a head of exactly `size` bytes, in one header."""
    bare = OK + b"Content-Length: 2\r\nA: \r\n\r\n"
    return OK + b"Content-Length: 2\r\nA: " + b"a" * (size - len(bare)) + b"\r\n\r\nok"


@pytest.mark.parametrize("step", [1000, 65_536, 1_000_000])
def test_a_head_may_have_64_kib_and_not_a_byte_more(bench: Bench, step: int) -> None:
    largest, larger = filled(MAX_HEAD_BYTES), filled(MAX_HEAD_BYTES + 1)

    fits = bench.fed(*(largest[at : at + step] for at in range(0, len(largest), step)))
    breaks = bench.fed(*(larger[at : at + step] for at in range(0, len(larger), step)))

    assert (fits.is_done, body_of(fits)) == (True, b"ok")
    assert isinstance(breaks.failure, ProviderBroke)


@pytest.mark.parametrize(
    "flood",
    [
        b"a: b\r\n" * 12_000,  # many small headers
        b"A: " + b"a" * 70 * 1024 + b"\r\n",
        b"\r\n" + b"HTTP/1.1 100 Continue\r\n\r\n" * 3_000,
    ],
    ids=["many headers", "one line of 70 KiB", "endless interim answers"],
)
def test_a_head_without_end_is_cut(bench: Bench, flood: bytes) -> None:
    start = b"HTTP/1.1 100 Continue\r\n" if flood.startswith(b"\r\n") else OK
    data = start + flood
    connection = bench.fed(*(data[at : at + 4096] for at in range(0, len(data), 4096)))

    assert isinstance(connection.failure, ProviderBroke)


@pytest.mark.parametrize("piece", [b";x" * 2000, b"T: t\r\n" * 700], ids=["extension", "trailers"])
def test_framing_without_a_body_is_cut(bench: Bench, piece: bytes) -> None:
    start = b"2;a" if piece.startswith(b";") else b"2\r\nok\r\n0\r\n"

    connection = bench.fed(CHUNKED + start, *[piece] * 30)

    assert isinstance(connection.failure, ProviderBroke)


def test_framing_between_pieces_of_body_may_go_on_for_ever(bench: Bench) -> None:
    connection = bench.fed(CHUNKED)
    for _ in range(20_000):
        for piece in (b"1;ext\r", b"\n", b"x", b"\r\n"):
            connection.data_received(piece)
        connection.take()
    connection.data_received(b"0\r\n\r\n")

    assert (connection.is_done, connection.failure) == (True, None)


def test_a_body_that_nobody_reads_stops_the_provider_until_it_is_taken(bench: Bench) -> None:
    connection = bench.fed(OK + b"Content-Length: 10000000\r\n\r\n")
    transport = connection.transport
    assert isinstance(transport, Loose)

    connection.data_received(b"x" * HIGH_WATER_BYTES)
    at_the_mark = transport.is_reading_paused
    connection.data_received(b"x")

    assert not at_the_mark
    assert transport.is_reading_paused
    assert len(connection.take()) == HIGH_WATER_BYTES + 1
    assert not transport.is_reading_paused


def test_what_came_before_a_cut_is_read_and_then_the_cut(bench: Bench) -> None:
    connection = bench.fed(OK + b"Content-Length: 5\r\n\r\nok")
    connection.connection_lost(ConnectionResetError())

    assert connection.take() == b"ok"
    with pytest.raises(ProviderBroke):
        bench.loop.run_until_complete(connection.wait(1))


def test_waiting_costs_one_timer_however_often_one_waits(bench: Bench) -> None:
    async def wait_often(connection: Connection) -> int:
        timers = set()
        for _ in range(50):
            waiting = asyncio.ensure_future(connection.wait(60))
            await asyncio.sleep(0)
            timers.add(id(connection._timer))
            connection.data_received(b"x")
            await waiting
            connection.take()
        with pytest.raises(ProviderTimedOut):
            await connection.wait(0.001)  # sooner than the timer that stands
        connection.abort()
        return len(timers)

    connection = bench.fed(OK + b"Content-Length: 1000\r\n\r\n")

    assert bench.loop.run_until_complete(wait_often(connection)) == 1


@pytest.mark.parametrize(("after_s", "is_race"), [(0.0, True), (CLOSING_RACE_S + 0.1, False)])
def test_a_connection_lost_late_may_have_been_worked_on(bench: Bench, after_s: float, is_race: bool) -> None:
    connection = bench.asked()
    bench.loop.ahead_s += after_s

    connection.eof_received()

    assert isinstance(connection.failure, ProviderBroke)
    assert connection.was_closed_on_asking == is_race


def test_repeated_headers_are_joined_and_names_are_lower_case(bench: Bench) -> None:
    connection = bench.fed(OK + b"X-A: 1\r\nx-a: 2\r\nX-B: \xff\r\nContent-Length: 0\r\n\r\n")

    assert connection.headers == {"x-a": "1, 2", "x-b": "ÿ", "content-length": "0"}
