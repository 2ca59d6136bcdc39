"""Google Cloud's access tokens: real keys, google-auth itself, a token server on loopback."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, unquote

import pytest
from tests.support.clock import HandClock
from tests.support.google import LIFETIME_S, FakeGoogle
from tests.support.http_server import Answering, LoopbackServer, Request
from tests.support.keys import pem, rsa_key

from torana.cloud_settings import GoogleSettings
from torana.errors import NoCredentials
from torana.providers.google_tokens import MISSING, GoogleTokens
from torana.providers.refreshing import AHEAD_S, RETRY_S
from torana.settings import Secret, TransportSettings
from torana.transport import Transport


@pytest.fixture
async def google() -> AsyncIterator[FakeGoogle]:
    async with FakeGoogle() as google:
        yield google


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport(TransportSettings())
    yield transport
    await transport.aclose()


async def test_a_service_accounts_key_gives_one_token_for_everybody(google: FakeGoogle, transport: Transport) -> None:
    tokens = GoogleTokens(GoogleSettings(service_account_key=Secret(google.key())), transport, HandClock())

    given = await asyncio.gather(*(tokens.bearer() for _ in range(20)))

    assert set(given) == {"ya29.token-1"}
    assert len(google.asked) == 1


async def test_a_token_is_renewed_ahead_of_its_end_and_the_old_one_serves_while_that_fails(
    google: FakeGoogle, transport: Transport
) -> None:
    clock = HandClock()
    tokens = GoogleTokens(GoogleSettings(service_account_key=Secret(google.key())), transport, clock)
    await tokens.bearer()
    google.refusal = 400, {"error": "invalid_grant", "error_description": "account disabled"}

    clock.advance(LIFETIME_S - AHEAD_S + 1)
    assert await tokens.bearer() == "ya29.token-1"
    await renewal_of(tokens)
    assert await tokens.bearer() == "ya29.token-1"

    google.refusal = None
    clock.advance(RETRY_S)
    assert await tokens.bearer() == "ya29.token-1"
    await renewal_of(tokens)
    assert await tokens.bearer() == "ya29.token-3"


async def renewal_of(tokens: GoogleTokens) -> None:
    flight = tokens._refreshing._flight
    assert flight is not None
    await flight


async def test_a_credentials_file_of_a_service_account_is_read(
    google: FakeGoogle, transport: Transport, tmp_path: Path
) -> None:
    file = tmp_path / "key.json"
    file.write_text(google.key())
    tokens = GoogleTokens(GoogleSettings(credentials_file=str(file)), transport, HandClock())

    assert await tokens.bearer() == "ya29.token-1"


async def test_a_credentials_file_in_the_home_directory_is_found(
    google: FakeGoogle, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `.env` may name it: no shell has looked at it."""
    (tmp_path / "key.json").write_text(google.key())
    monkeypatch.setenv("HOME", str(tmp_path))
    tokens = GoogleTokens(GoogleSettings(credentials_file="~/key.json"), transport, HandClock())

    assert await tokens.bearer() == "ya29.token-1"


async def test_a_key_that_was_replaced_in_its_file_serves_without_a_restart(
    google: FakeGoogle, transport: Transport, tmp_path: Path
) -> None:
    file, clock = tmp_path / "key.json", HandClock()
    file.write_text(google.key(private_key=pem(rsa_key(8))))
    tokens = GoogleTokens(GoogleSettings(credentials_file=str(file)), transport, clock)
    with pytest.raises(NoCredentials):
        await tokens.bearer()

    file.write_text(google.key())
    clock.advance(RETRY_S)

    assert await tokens.bearer() == "ya29.token-2"


async def test_without_any_credentials_named_the_machine_says_who_it_is(tmp_path: Path) -> None:
    """As on Google's own machines, whose metadata server tells tokens of the account that they run as."""

    async def tell(request: Request, answering: Answering) -> None:
        assert request.header("metadata-flavor") == "Google"
        told = {
            "/computeMetadata/v1/project/project-id": b"my-project",
            "/computeMetadata/v1/instance/service-accounts/default/": b'{"email": "a@b", "scopes": [], "aliases": []}',
            "/computeMetadata/v1/instance/service-accounts/default/token": (
                b'{"access_token": "ya29.machine", "expires_in": 3599, "token_type": "Bearer"}'
            ),
        }
        headers = [("Metadata-Flavor", "Google"), ("Content-Type", "application/json")]
        await answering.whole(200, told.get(request.path, b"computeMetadata/"), headers)

    server = LoopbackServer(tell)
    await server.start()
    host = server.url.removeprefix("http://")
    # The library reads where that server is when it is imported.
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASK, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    told, complaints = await process.communicate()
    await server.aclose()

    assert told.decode().strip() == "ya29.machine", complaints.decode()


ASK = """
import asyncio
from torana.cloud_settings import GoogleSettings
from torana.clock import Clock
from torana.providers.google_tokens import GoogleTokens
from torana.settings import TransportSettings
from torana.transport import Transport

async def ask():
    transport = Transport(TransportSettings())
    print(await GoogleTokens(GoogleSettings(project="p"), transport, Clock()).bearer())
    await transport.aclose()

asyncio.run(ask())
"""


async def test_a_credentials_file_of_another_kind_is_read(
    google: FakeGoogle, transport: Transport, tmp_path: Path
) -> None:
    """Workload identity federation: a token of somebody else is exchanged for one of Google's."""
    subject = tmp_path / "subject"
    subject.write_text("subject-token")
    file = tmp_path / "federation.json"
    federation = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": google.token_uri,
        "credential_source": {"file": str(subject)},
    }
    file.write_text(json.dumps(federation))
    google.refusal = 200, {"access_token": "ya29.federated", "expires_in": 3600, "token_type": "Bearer"}
    tokens = GoogleTokens(GoogleSettings(credentials_file=str(file)), transport, HandClock())

    assert await tokens.bearer() == "ya29.federated"
    assert b"subject-token" in google.asked[0].body


async def test_a_workforces_own_credentials_file_is_read(
    google: FakeGoogle, transport: Transport, tmp_path: Path
) -> None:
    """As `gcloud auth application-default login` writes it for people of another identity provider."""
    held = {
        "type": "external_account_authorized_user",
        "audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/q",
        "client_id": "id",
        "client_secret": "secret",
        "refresh_token": "refresh-1",
        "token_url": google.token_uri,
        "token_info_url": google.token_uri,
    }
    (tmp_path / "user.json").write_text(json.dumps(held))
    google.refusal = 200, {"access_token": "ya29.user", "expires_in": 3600, "token_type": "Bearer"}
    tokens = GoogleTokens(GoogleSettings(credentials_file=str(tmp_path / "user.json")), transport, HandClock())

    assert await tokens.bearer() == "ya29.user"
    assert parse_qs(google.asked[0].body.decode())["refresh_token"] == ["refresh-1"]


async def test_a_workload_on_aws_proves_itself_by_a_signed_question(
    google: FakeGoogle, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google asks AWS who signed it. Source: Google Cloud, "Workload Identity Federation with AWS"."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    held = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
        "token_url": google.token_uri,
        "credential_source": {
            "environment_id": "aws1",
            "regional_cred_verification_url": (
                "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
            ),
        },
    }
    (tmp_path / "aws.json").write_text(json.dumps(held))
    google.refusal = 200, {"access_token": "ya29.aws", "expires_in": 3600, "token_type": "Bearer"}
    tokens = GoogleTokens(GoogleSettings(credentials_file=str(tmp_path / "aws.json")), transport, HandClock())

    assert await tokens.bearer() == "ya29.aws"
    (asked,) = google.asked
    question = json.loads(unquote(parse_qs(asked.body.decode())["subject_token"][0]))
    assert question["url"].startswith("https://sts.eu-central-1.amazonaws.com?")
    signed = {header["key"].lower(): header["value"] for header in question["headers"]}
    assert "Credential=AKIDEXAMPLE/" in signed["authorization"]


async def test_a_refused_key_is_told_as_such(google: FakeGoogle, transport: Transport) -> None:
    forged = google.key(private_key=pem(rsa_key(8)))
    tokens = GoogleTokens(GoogleSettings(service_account_key=Secret(forged)), transport, HandClock())

    with pytest.raises(NoCredentials, match=r"gives no token .*invalid_grant"):
        await tokens.bearer()


async def test_a_token_server_that_cannot_be_reached_is_told_as_such(google: FakeGoogle, transport: Transport) -> None:
    nowhere = google.key(token_uri="http://127.0.0.1:9/token")
    tokens = GoogleTokens(GoogleSettings(service_account_key=Secret(nowhere)), transport, HandClock())

    with pytest.raises(NoCredentials, match=r"127\.0\.0\.1:9"):
        await tokens.bearer()


def test_without_the_library_the_way_to_it_is_named() -> None:
    script = """
import asyncio, sys
sys.modules["google"] = None  # as where it is not installed
from torana.clock import Clock
from torana.cloud_settings import GoogleSettings
from torana.providers.google_tokens import GoogleTokens
from torana.settings import TransportSettings
from torana.transport import Transport
async def ask():
    await GoogleTokens(GoogleSettings(project="p"), Transport(TransportSettings()), Clock()).bearer()
try:
    asyncio.run(ask())
except Exception as error:
    print(type(error).__name__, error)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)

    assert told.stdout.strip() == f"NoCredentials {MISSING}"
    assert "make extras" in MISSING
