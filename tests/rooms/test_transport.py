"""Outbound HTTP as the rooms see it: whom it trusts, whom it calls, and how small things are fetched."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from bench.processes import free_port
from tests.support.certificates import Authority
from tests.support.http_server import Answering, LoopbackServer, Request
from tests.support.raw_server import Line, RawServer
from tests.support.waiting import WAIT_S

from torana.errors import ProviderTlsFailed, ProviderUnreachable
from torana.settings import Secret, TransportSettings
from torana.transport import FetchFailed, Transport, WireRequest, tls_context
from torana.wire.addresses import Resolve

MakeTransport = Callable[..., Transport]


@pytest.fixture
async def make_transport() -> AsyncIterator[MakeTransport]:
    async with AsyncExitStack() as stack:

        def make(settings: TransportSettings | None = None, names: Resolve | None = None) -> Transport:
            transport = Transport(settings or TransportSettings(), names)
            stack.push_async_callback(transport.aclose)
            return transport

        yield make


async def echo(request: Request, answering: Answering) -> None:
    await answering.whole(200, request.target, [])


async def ask(transport: Transport, url: str, *, is_client_given: bool = False) -> bytes:
    request = WireRequest(url=url, headers={"X-A": "b"}, body=b"{}", is_client_given=is_client_given)
    answer = await transport.send(request, first_byte_s=5)
    return await answer.read_all(1000)


# Hosts that clients name


@pytest.mark.parametrize("is_client_given", [False, True])
async def test_a_slow_name_of_a_client_takes_no_thread_that_the_operators_names_need(
    make_transport: MakeTransport, is_client_given: bool
) -> None:
    transport, before = make_transport(), set(threading.enumerate())

    with pytest.raises(ProviderUnreachable):
        await ask(transport, f"http://localhost:{free_port()}/", is_client_given=is_client_given)

    begun = {thread.name for thread in set(threading.enumerate()) - before}
    assert any(name.startswith("clients-names") for name in begun) is is_client_given


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        "http://2852039166/",  # 169.254.169.254 as one number
        "http://0xa9.0xfe.0xa9.0xfe/",
    ],
)
async def test_a_client_never_leads_us_to_a_forbidden_address(make_transport: MakeTransport, url: str) -> None:
    with pytest.raises(ProviderUnreachable, match="never called"):
        await ask(make_transport(), url, is_client_given=True)


async def test_a_clients_host_is_looked_up_once_and_called_where_it_was_checked(
    make_transport: MakeTransport,
) -> None:
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def rebind(host: str, port: int) -> list[str]:
        return answers.pop(0)

    transport = make_transport(names=rebind)
    async with LoopbackServer(echo) as server:
        url = f"http://rebind.example:{server.port}/a"

        assert await ask(transport, url, is_client_given=True) == b"/a"
        assert await ask(transport, url, is_client_given=True) == b"/a"  # on the same connection
        assert server.connections == 1
        await transport.aclose()

    transport = make_transport(names=rebind)
    with pytest.raises(ProviderUnreachable, match="never called"):
        await ask(transport, url, is_client_given=True)


async def test_a_clients_host_never_shares_an_operators_connection_or_proxy(make_transport: MakeTransport) -> None:
    async with LoopbackServer(echo) as server, LoopbackServer(echo) as proxy:
        transport = make_transport(TransportSettings(http_proxy=proxy.url, https_proxy=proxy.url))

        assert await ask(transport, f"{server.url}/own", is_client_given=True) == b"/own"
        assert await ask(transport, f"{server.url}/ours") == f"{server.url}/ours".encode()
        assert (server.connections, proxy.connections) == (1, 1)
        assert transport.open_connections == 2

        direct = make_transport()
        await ask(direct, server.url)
        await ask(direct, server.url, is_client_given=True)
        assert server.connections == 3


async def test_no_proxy_leads_straight_to_the_host(make_transport: MakeTransport) -> None:
    async with LoopbackServer(echo) as server:
        settings = TransportSettings(http_proxy="http://127.0.0.1:1", no_proxy=("127.0.0.0/8",))

        assert await ask(make_transport(settings), f"{server.url}/a") == b"/a"


# Whom we trust


async def test_the_extra_authority_is_trusted_as_a_file_or_in_a_folder(
    make_transport: MakeTransport, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    folder = tmp_path / "extra"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(authority.cert.read_bytes())
    (folder / "README").write_text("not a certificate")

    async def script(line: Line) -> None:
        await line.read_request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await line.gone()

    async with RawServer(script, authority.issue("127.0.0.1").server_context()) as server:
        with pytest.raises(ProviderTlsFailed):
            await ask(make_transport(), server.url())
        for extra_ca in (authority.cert, folder):
            transport = make_transport(TransportSettings(extra_ca=str(extra_ca)))
            assert await ask(transport, server.url()) == b"ok"
            await transport.aclose()


async def test_certificate_files_that_cannot_be_read_are_our_own_tls_failure(
    make_transport: MakeTransport, tmp_path: Path
) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")

    async def stay(line: Line) -> None:
        await line.gone()

    async with RawServer(stay) as server:
        for name in ("missing.pem", "bad.pem"):
            transport = make_transport(TransportSettings(extra_ca=str(tmp_path / name)))
            with pytest.raises(ProviderTlsFailed, match="our own certificate files"):
                await ask(transport, f"https://127.0.0.1:{server.port}/")
            assert transport.open_connections == 0


def test_a_client_certificate_is_loaded_with_its_password(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = authority.issue(password="secret")
    settings = TransportSettings(
        mtls_enabled=True,
        mtls_cert_file=str(ours.cert),
        mtls_key_file=str(ours.key),
        mtls_key_password=Secret("secret"),
        mtls_ca_bundle=str(authority.cert),
    )

    context = tls_context(settings)

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1


def test_certificates_are_checked_unless_the_operator_says_no(tmp_path: Path) -> None:
    ours = Authority(tmp_path).issue()
    files: Mapping[str, str] = {"mtls_cert_file": str(ours.cert), "mtls_key_file": str(ours.key)}

    assert tls_context(TransportSettings(mtls_verify=False)).verify_mode == ssl.CERT_REQUIRED
    assert tls_context(TransportSettings(mtls_enabled=True, **files)).verify_mode == ssl.CERT_REQUIRED  # type: ignore[arg-type]
    off = TransportSettings(mtls_enabled=True, mtls_verify=False, **files)  # type: ignore[arg-type]
    assert tls_context(off).verify_mode == ssl.CERT_NONE


# Small things


@pytest.mark.parametrize("size", [0, 99, 100, 101, 100_000])
async def test_fetch_takes_up_to_its_limit(make_transport: MakeTransport, size: int) -> None:
    async def handle(request: Request, answering: Answering) -> None:
        assert request.header("accept") == "application/json"
        assert request.header("x-a") == "b"
        await answering.whole(200, b"x" * size, [("X-B", "c")])

    async with LoopbackServer(handle) as server:
        fetching = make_transport().fetch(server.url, headers={"X-A": "b"}, timeout_s=5, limit_bytes=100)
        if size > 100:
            with pytest.raises(FetchFailed, match="larger than 100 bytes"):
                await fetching
        else:
            fetched = await fetching
            assert (fetched.status, fetched.headers["x-b"], len(fetched.body)) == (200, "c", size)


async def test_fetch_gives_the_status_whatever_it_is_and_follows_nothing(make_transport: MakeTransport) -> None:
    async def handle(request: Request, answering: Answering) -> None:
        await answering.whole(302, b"", [("Location", "/else")])

    async with LoopbackServer(handle) as server:
        fetched = await make_transport().fetch(server.url, timeout_s=5, limit_bytes=100)

        assert (fetched.status, fetched.headers["location"]) == (302, "/else")


@pytest.mark.parametrize("moment", ["head", "body", "trickle"])
async def test_fetch_has_one_patience_for_all(make_transport: MakeTransport, moment: str) -> None:
    async def handle(request: Request, answering: Answering) -> None:
        if moment != "head":
            await answering.head(200, [("Content-Length", "1000")])
        while moment == "trickle":
            await answering.write(b"x")
            await asyncio.sleep(0.01)
        await request.hung_up.wait()

    transport = make_transport()
    async with LoopbackServer(handle) as server:
        with pytest.raises(FetchFailed):
            async with asyncio.timeout(WAIT_S):
                await transport.fetch(server.url, timeout_s=0.1, limit_bytes=1000)

        assert transport.open_connections == 0


async def test_fetch_tells_a_cut_and_a_refusal_apart_from_an_answer(make_transport: MakeTransport) -> None:
    async def handle(request: Request, answering: Answering) -> None:
        await answering.head(200, [("Content-Length", "10")])
        await answering.write(b"half")
        answering.close()

    async with LoopbackServer(handle) as server:
        with pytest.raises(FetchFailed, match="before the answer's end"):
            await make_transport().fetch(server.url, timeout_s=5, limit_bytes=100)
        server.stop_listening()
        with pytest.raises(FetchFailed, match="refused"):
            await make_transport().fetch(server.url, timeout_s=5, limit_bytes=100)
