"""Model servers that want to see a certificate of ours (contract 10.3, `AIGW_MTLS__*`)."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import StartGateway
from tests.support.certificates import Authority, Identity
from tests.support.gateway import RunningGateway
from tests.support.harm import HarmfulProxy
from tests.support.http_client import Answer
from tests.support.provider import ScriptedProvider
from tests.support.served import served

from torana.errors import BadSetting


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture
def strangers(tmp_path: Path) -> Authority:
    folder = tmp_path / "strangers"
    folder.mkdir()
    return Authority(folder, "Stranger")


def demanding(authority: Authority, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Of a server that talks to nobody without a certificate of this authority."""
    context = authority.issue("localhost", "127.0.0.1").server_context()
    context.load_verify_locations(authority.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = newest
    return context


def shown(ours: Identity, trusted: Authority, **further: str) -> dict[str, str]:
    return {
        "AIGW_MTLS__ENABLED": "true",
        "AIGW_MTLS__CERT_FILE": str(ours.cert),
        "AIGW_MTLS__KEY_FILE": str(ours.key),
        "AIGW_MTLS__CA_BUNDLE": str(trusted.cert),
        "AIGW_CUSTOM_MODELS__ENABLED": "true",
        **further,
    }


async def check(gateway: RunningGateway, port: int) -> Answer:
    """The connection check of contract 10.5 against the server behind `port`."""
    own = {"provider": "openai", "name": "mistral", "endpoint": f"https://127.0.0.1:{port}/v1", "identifier": "m"}
    return await gateway.post(
        "/v1/prompts/model_configuration%2Fcheck",
        json={"stream": False, "inputs": {}, "model_metadata": own},
        token=gateway.token(unit_primitives=["complete_code"]),
    )


@contextmanager
def refusing(tls: ssl.SSLContext) -> Iterator[int]:
    """The port of a server that says why it refuses a client, as OpenSSL's do and asyncio's do not."""
    listening = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                return
            with tls.wrap_socket(line, server_side=True, do_handshake_on_connect=False) as line_with_tls:
                with pytest.raises(ssl.SSLError):
                    line_with_tls.do_handshake()
                # What the peer has sent already must not turn its end into a reset.
                while socket.socket.recv(line_with_tls, 65536):
                    pass

    thread = threading.Thread(target=refuse)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


BOTH_VERSIONS = pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@BOTH_VERSIONS
@pytest.mark.parametrize("password", ["", "secret"])
async def test_a_server_that_wants_our_certificate_gets_it(
    start_gateway: StartGateway,
    provider: ScriptedProvider,
    authority: Authority,
    newest: ssl.TLSVersion,
    password: str,
) -> None:
    ours = authority.issue(password=password)
    gateway = await start_gateway(env=shown(ours, authority, AIGW_MTLS__KEY_PASSWORD=password))

    async with HarmfulProxy(provider.server.port, demanding(authority, newest)) as server:
        answer = await check(gateway, server.port)

    assert answer.status == 200
    assert len(provider.requests) == 1


@BOTH_VERSIONS
@pytest.mark.parametrize("who", ["nobody", "stranger"])
async def test_a_server_that_refuses_our_certificate_is_a_model_problem_with_its_reason_in_the_log(
    start_gateway: StartGateway,
    provider: ScriptedProvider,
    authority: Authority,
    strangers: Authority,
    newest: ssl.TLSVersion,
    who: str,
) -> None:
    env = shown(strangers.issue(), authority)
    if who == "nobody":
        env = {"AIGW_EXTRA_CA": str(authority.cert), "AIGW_CUSTOM_MODELS__ENABLED": "true"}
    gateway = await start_gateway(env=env)

    with refusing(demanding(authority, newest)) as port:
        answer = await check(gateway, port)

    assert (answer.status, answer.json()["detail"]) == (421, "503: Service Unavailable")
    assert (answer.refusal.code, answer.refusal.retryable) == ("upstream_tls", False)
    assert "AIGW_MTLS__CERT_FILE" in answer.refusal.remedy
    assert provider.requests == []
    line = await gateway.log.find(logger="api.access", status_code=421)
    assert "ALERT" in line["provider_reason"]  # OpenSSL's own word for what the other side said


async def test_the_log_says_what_is_wrong_with_the_servers_certificate(
    start_gateway: StartGateway, provider: ScriptedProvider, authority: Authority, strangers: Authority
) -> None:
    gateway = await start_gateway(env=shown(authority.issue(), authority))

    async with HarmfulProxy(provider.server.port, strangers.issue("127.0.0.1").server_context()) as server:
        answer = await check(gateway, server.port)

    assert (answer.status, answer.refusal.code) == (421, "upstream_tls")
    assert "certificate" in (await gateway.log.find(logger="api.access", status_code=421))["provider_reason"]


async def test_unchecked_servers_are_shown_our_certificate_too(
    start_gateway: StartGateway, provider: ScriptedProvider, authority: Authority, strangers: Authority
) -> None:
    gateway = await start_gateway(env=shown(authority.issue(), strangers, AIGW_MTLS__VERIFY="false"))

    async with HarmfulProxy(provider.server.port, demanding(authority)) as server:
        answer = await check(gateway, server.port)

    assert answer.status == 200


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"AIGW_MTLS__CERT_FILE": "/nowhere.crt"}, "AIGW_MTLS__CERT_FILE: '/nowhere.crt'"),
        ({"AIGW_MTLS__CERT_FILE": ""}, "AIGW_MTLS__CERT_FILE: is not set, "),
        ({"AIGW_MTLS__KEY_FILE": "{others}"}, "AIGW_MTLS__CERT_FILE: "),
        ({"AIGW_MTLS__KEY_PASSWORD": ""}, "AIGW_MTLS__CERT_FILE: "),
        ({"AIGW_MTLS__KEY_PASSWORD": "wrong"}, "AIGW_MTLS__CERT_FILE: "),
        ({"AIGW_MTLS__CA_BUNDLE": "{key}"}, "AIGW_MTLS__CA_BUNDLE: "),
        ({"AIGW_EXTRA_CA": "{key}"}, "AIGW_EXTRA_CA: "),
        ({"AIGW_MTLS__CA_BUNDLE": "", "SSL_CERT_FILE": "/nowhere.pem"}, "SSL_CERT_FILE: '/nowhere.pem'"),
    ],
)
async def test_files_that_are_of_no_use_stop_the_start_and_the_right_name_is_told(
    start_gateway: StartGateway,
    authority: Authority,
    strangers: Authority,
    changed: dict[str, str],
    told: str,
) -> None:
    ours = authority.issue(password="secret")
    env = shown(ours, authority, AIGW_MTLS__KEY_PASSWORD="secret")
    others = {"{others}": str(strangers.issue().key), "{key}": str(ours.key)}
    env |= {name: others.get(value, value) for name, value in changed.items()}

    with pytest.raises(BadSetting) as raised:
        await start_gateway(env=env)

    assert str(raised.value).startswith(told)


async def test_nobody_is_asked_for_a_password_at_the_terminal(tmp_path: Path, authority: Authority) -> None:
    ours = authority.issue(password="secret")

    async with served(tmp_path, env=shown(ours, authority)) as server:
        assert await server.process.wait() == 2

    assert "pass phrase" not in server.stderr
    assert server.stderr.startswith("AIGW_MTLS__CERT_FILE: ")
