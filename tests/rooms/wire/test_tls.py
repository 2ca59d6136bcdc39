"""TLS and proxies: whom we trust, what we show, and what a handshake that fails is called."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.support.certificates import Authority
from tests.support.raw_server import Line, RawServer
from tests.support.waiting import WAIT_S

from torana.errors import ProviderBroke, ProviderTlsFailed, ProviderUnreachable
from torana.wire.client import WireClient

MakeClient = Callable[..., WireClient]
OK = b"HTTP/1.1 200 OK\r\n"
SOON_S = 0.1


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def echo(line: Line) -> None:
    while True:
        path = (await line.read_request()).split(b" ", 2)[1]
        await line.send(OK + b"Content-Length: %d\r\n\r\n%s" % (len(path), path))


async def ask(client: WireClient, url: str, proxy: str = "", body: bytes = b"{}") -> tuple[int, bytes]:
    reply = await client.send("POST", url, {}, body, first_byte_s=5, idle_s=5, proxy=proxy)
    return reply.status, await reply.read_all(1 << 24)


async def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


# TLS


async def test_a_trusted_certificate_serves_and_its_connection_is_kept(
    make_client: MakeClient, authority: Authority
) -> None:
    client = make_client(tls=authority.client_context, resolve=loopback)
    async with RawServer(echo, authority.issue("model.example").server_context()) as server:
        for number in range(3):
            path = f"/{number}"
            assert await ask(client, server.url(path, "model.example"), body=b"x" * 300_000) == (200, path.encode())

        assert len(server.lines) == 1
        await client.aclose()
        await server.all_gone()


@pytest.mark.parametrize("fault", ["self-signed", "wrong host", "wrong address", "expired", "no TLS"])
async def test_what_cannot_be_trusted_is_a_tls_failure_and_nothing_is_sent(
    make_client: MakeClient, authority: Authority, tmp_path: Path, fault: str
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "Stranger")
    context: ssl.SSLContext | None = {
        "self-signed": stranger.issue("127.0.0.1"),
        "wrong host": authority.issue("model.example"),
        "wrong address": authority.issue("127.0.0.2"),
        "expired": authority.issue("127.0.0.1", is_expired=True),
    }.get(fault, authority.issue("127.0.0.1")).server_context()
    trusted = authority.client_context()
    if fault == "no TLS":
        context = None

    async def listen(line: Line) -> None:
        if context is None:
            await line.read_piece()
            await line.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        else:
            line.requests.append(await line.read_piece())

    client = make_client(tls=lambda: trusted)
    async with RawServer(listen, context) as server:
        with pytest.raises(ProviderTlsFailed) as told:
            await ask(client, f"https://127.0.0.1:{server.port}/")
        await server.all_gone()

    assert (told.value.code, told.value.is_retryable) == ("upstream_tls", False)
    assert [request for request in server.requests if request] == []
    assert client.open_connections == 0


async def test_a_handshake_that_stalls_ends_with_the_patience_for_connecting(
    make_client: MakeClient, authority: Authority
) -> None:
    async def stall(line: Line) -> None:
        await line.gone()

    client = make_client(connect_s=SOON_S, tls=authority.client_context)
    async with RawServer(stall) as server:
        with pytest.raises(ProviderTlsFailed, match="within the handshake: no connection") as told:
            await ask(client, f"https://127.0.0.1:{server.port}/")
        async with asyncio.timeout(WAIT_S):
            await server.all_gone()

    assert told.value.is_retryable  # nothing was sent, no certificate refused
    assert client.open_connections == 0


@pytest.mark.parametrize("way", ["reset", "close"])
async def test_a_connection_lost_within_the_handshake_may_be_tried_elsewhere(
    make_client: MakeClient, authority: Authority, way: str
) -> None:
    async def leave(line: Line) -> None:
        await line.read_piece()
        getattr(line, way)()

    client = make_client(tls=authority.client_context)
    async with RawServer(leave) as server:
        with pytest.raises(ProviderTlsFailed) as told:
            await ask(client, f"https://127.0.0.1:{server.port}/")

    assert told.value.is_retryable
    assert client.open_connections == 0


async def test_leaving_within_the_handshake_closes_the_connection(
    make_client: MakeClient, authority: Authority
) -> None:
    has_begun = asyncio.Event()

    async def stall(line: Line) -> None:
        await line.read_piece()
        has_begun.set()
        await line.gone()

    client = make_client(tls=authority.client_context)
    async with RawServer(stall) as server:
        task = asyncio.ensure_future(ask(client, f"https://127.0.0.1:{server.port}/"))
        await has_begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(WAIT_S):
            await server.all_gone()

    assert client.open_connections == 0


async def test_leaving_at_any_moment_of_a_tls_call_leaves_nothing(
    make_client: MakeClient, authority: Authority
) -> None:
    client = make_client(tls=authority.client_context)
    async with RawServer(echo, authority.issue("127.0.0.1").server_context()) as server:
        for turns in range(30):
            task = asyncio.ensure_future(ask(client, server.url(f"/{turns}")))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                assert await task == (200, b"/%d" % turns)

        assert await ask(client, server.url("/after")) == (200, b"/after")
        await client.aclose()
        async with asyncio.timeout(WAIT_S):
            await server.all_gone()
    assert client.open_connections == 0


@contextmanager
def openssl_server(context: ssl.SSLContext, serve: Callable[[ssl.SSLSocket], None]) -> Iterator[str]:
    """One connection to OpenSSL on a blocking socket: it sends the alerts that the event loops' servers swallow."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        plain, _ = listener.accept()
        plain.settimeout(5)
        secured = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        try:
            secured.do_handshake()
        except ssl.SSLError:
            # Closing with bytes unread would send a reset, which may overtake the alert.
            with socket.socket(fileno=secured.detach()) as bare, suppress(ConnectionError):
                bare.settimeout(5)
                while bare.recv(65536):
                    pass
        else:
            with secured:
                serve(secured)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        thread.join()
        listener.close()


@pytest.mark.parametrize("is_clean", [True, False], ids=["farewell", "cut"])
async def test_a_body_without_length_needs_the_farewell_of_tls(
    make_client: MakeClient, authority: Authority, is_clean: bool
) -> None:
    is_read = threading.Event()

    def serve(secured: ssl.SSLSocket) -> None:
        secured.recv(65536)
        secured.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
        is_read.wait(5)
        if is_clean:
            secured.unwrap()

    client = make_client(tls=authority.client_context)
    with openssl_server(authority.issue("127.0.0.1").server_context(), serve) as url:
        reply = await client.send("POST", url, {}, b"", first_byte_s=5, idle_s=5)
        assert await reply.read() == b"hello"
        is_read.set()

        if is_clean:
            assert await reply.read() == b""
        else:
            with pytest.raises(ProviderBroke):
                await reply.read()


async def test_a_server_that_speaks_only_an_old_version_is_a_tls_failure(
    make_client: MakeClient, authority: Authority
) -> None:
    context = authority.issue("127.0.0.1").server_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    ours = authority.client_context()
    ours.minimum_version = ssl.TLSVersion.TLSv1_3

    client = make_client(tls=lambda: ours)
    with openssl_server(context, lambda secured: None) as url, pytest.raises(ProviderTlsFailed) as told:
        await ask(client, url)

    assert not told.value.is_retryable


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("has_ours", [True, False])
async def test_a_server_that_wants_a_client_certificate_gets_ours_or_tls_fails(
    make_client: MakeClient, authority: Authority, version: ssl.TLSVersion, has_ours: bool
) -> None:
    wanting = authority.issue("127.0.0.1").server_context()
    wanting.load_verify_locations(authority.cert)
    wanting.verify_mode = ssl.CERT_REQUIRED
    wanting.maximum_version = version
    context = authority.client_context()
    if has_ours:
        ours = authority.issue()
        context.load_cert_chain(ours.cert, ours.key)
    heard: list[bytes] = []

    def serve(secured: ssl.SSLSocket) -> None:
        heard.append(secured.recv(65536))
        secured.sendall(OK + b"Content-Length: 2\r\n\r\nin")

    client = make_client(tls=lambda: context)
    with openssl_server(wanting, serve) as url:
        if has_ours:
            assert await ask(client, url) == (200, b"in")
        else:
            with pytest.raises(ProviderTlsFailed):
                await ask(client, url)

    assert len(heard) == has_ours


# Proxies


class Proxy:
    """Passes CONNECT on to a port of the test's own and remembers what it was asked."""

    def __init__(self, port: int = 0, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.asked: list[bytes] = []
        self._port = port
        self._answer = answer

    async def __call__(self, line: Line) -> None:
        head = await line.read_head()
        self.asked.append(head)
        if not head.startswith(b"CONNECT"):
            await line.send(OK + b"Content-Length: 5\r\n\r\nproxy")
            await line.gone()
            return
        await line.send(self._answer)
        if not self._answer.startswith(b"HTTP/1.1 2"):
            await line.gone()
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def back() -> None:
            while data := await reader.read(65536):
                await line.send(data)

        task = asyncio.ensure_future(back())
        try:
            while data := await line.read_piece():
                writer.write(data)
        finally:
            writer.close()
            task.cancel()


async def test_a_plain_request_tells_its_proxy_the_whole_address(client: WireClient) -> None:
    proxy = Proxy()
    async with RawServer(proxy) as server:
        address = f"http://us%20er:p%40ss@127.0.0.1:{server.port}"
        assert await ask(client, "http://model.example:8080/a?b=c", address, b"") == (200, b"proxy")

    assert proxy.asked == [
        b"POST http://model.example:8080/a?b=c HTTP/1.1\r\nHost: model.example:8080\r\n"
        b"Proxy-Authorization: Basic dXMgZXI6cEBzcw==\r\nContent-Length: 0\r\n\r\n"
    ]


@pytest.mark.parametrize("is_tls_to_proxy", [False, True], ids=["http proxy", "https proxy"])
async def test_a_tls_request_goes_through_a_tunnel_and_shows_the_proxy_nothing(
    make_client: MakeClient, authority: Authority, is_tls_to_proxy: bool
) -> None:
    client = make_client(tls=authority.client_context)  # resolves nothing: only the proxy is called
    to_proxy = authority.issue("127.0.0.1").server_context() if is_tls_to_proxy else None
    async with RawServer(echo, authority.issue("model.example").server_context()) as server:
        proxy = Proxy(server.port)
        async with RawServer(proxy, to_proxy) as between:
            address = between.url().replace("//", "//user:secret@")
            for number in range(2):
                path = f"/{number}"
                assert await ask(client, f"https://model.example{path}", address) == (200, path.encode())

            assert len(between.lines) == 1
            await client.aclose()
            await between.all_gone()

    assert proxy.asked == [
        b"CONNECT model.example:443 HTTP/1.1\r\nHost: model.example:443\r\n"
        b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n"
    ]
    assert b"Proxy-Authorization" not in b"".join(server.requests)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nbytes of its own",
        b"SSH-2.0-x\r\n\r\n",
    ],
    ids=["407", "502", "302", "bytes of its own", "no HTTP"],
)
async def test_a_proxy_that_refuses_is_unreachable_and_told_nothing_more(
    make_client: MakeClient, authority: Authority, answer: bytes
) -> None:
    client = make_client(tls=authority.client_context)
    async with RawServer(echo) as server, RawServer(Proxy(server.port, answer)) as between:
        with pytest.raises(ProviderUnreachable, match="proxy") as told:
            await ask(client, "https://model.example/", f"http://user:secret@127.0.0.1:{between.port}")
        await between.all_gone()

    assert "secret" not in str(told.value)
    assert client.open_connections == 0


async def test_a_proxy_that_never_answers_ends_with_the_patience_for_connecting(
    make_client: MakeClient, authority: Authority
) -> None:
    async def stall(line: Line) -> None:
        await line.gone()

    client = make_client(connect_s=SOON_S, tls=authority.client_context)
    async with RawServer(stall) as between:
        with pytest.raises(ProviderUnreachable, match="no connection within"):
            await ask(client, "https://model.example/", between.url())
        await between.all_gone()
    assert client.open_connections == 0


async def test_the_certificate_behind_a_tunnel_must_be_the_hosts(make_client: MakeClient, authority: Authority) -> None:
    client = make_client(tls=authority.client_context)
    async with (
        RawServer(echo, authority.issue("other.example").server_context()) as server,
        RawServer(Proxy(server.port)) as between,
    ):
        with pytest.raises(ProviderTlsFailed):
            await ask(client, "https://model.example/", between.url())
        await between.all_gone()
    assert client.open_connections == 0
