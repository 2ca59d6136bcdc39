"""Who is measured, and the mock provider behind them: started on loopback, in a directory of their own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench import processes

TORANA = str(Path(sys.executable).with_name("torana"))

_NGINX = """
daemon off; master_process on; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.err;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  upstream provider {{ server 127.0.0.1:{provider}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    pid: int
    port: int
    log: Path

    def forget_log(self) -> None:
        """The log is written while we measure; what it says is not needed, and the disk is finite."""
        os.truncate(self.log, 0)


@dataclass(frozen=True, slots=True)
class Gateway(Server):
    headers: dict[str, str]
    ready_s: float
    metrics_port: int
    env: dict[str, str]


@contextmanager
def provider(directory: Path) -> Iterator[Server]:
    port = processes.free_port()
    command = [sys.executable, "-m", "bench.provider", str(port)]
    with _listening(command, processes.LOAD_CORE, directory / "provider", port) as server:
        yield server


@contextmanager
def nginx(directory: Path, provider_port: int) -> Iterator[Server]:
    """One worker, connections to the provider kept, no buffering, no log."""
    port = processes.free_port()
    config = directory / "nginx.conf"
    as_root = "user root;" if os.geteuid() == 0 else ""  # else the worker could not enter our directory
    config.write_text(as_root + _NGINX.format(dir=directory, port=port, provider=provider_port))
    command = ["nginx", "-c", str(config), "-e", f"{directory}/nginx.err"]
    with _listening(command, processes.MEASURED_CORE, directory / "nginx", port) as server:
        yield server


@contextmanager
def redis(directory: Path) -> Iterator[Server]:
    """Keeps nothing on the disk."""
    port = processes.free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(directory)]
    with _listening(["redis-server", *options], processes.LOAD_CORE, directory / "redis", port) as server:
        yield server


@contextmanager
def _listening(command: Sequence[str], core: int, out: Path, port: int) -> Iterator[Server]:
    """`command` from when it listens on `port` to its end; its output goes to `<out>.out` and `<out>.err`."""
    process = processes.start(command, core, out)
    try:
        processes.wait_for_port(port, process)
        yield Server(process.pid, port, out.with_suffix(".out"))
    finally:
        processes.stop(process)


@contextmanager
def gateway(
    directory: Path, provider_port: int, *, program: Sequence[str] = (TORANA,), **more_env: str
) -> Iterator[Gateway]:
    """One worker, logs and metrics on, production settings; no issuer is asked, the token is locally signed."""
    port, metrics_port = processes.free_port(), processes.free_port()
    env = _environment(directory, provider_port) | more_env
    out = directory / "gateway"
    command = [*program, "serve", "--port", str(port), "--metrics-port", str(metrics_port)]
    process = processes.start(command, processes.MEASURED_CORE, out, env)
    try:
        ready_s = processes.seconds_until(port, "/monitoring/ready", process)
        log = out.with_suffix(".out")
        yield Gateway(process.pid, port, log, token_headers(env), ready_s, metrics_port, env)
    except RuntimeError as error:
        told = out.with_suffix(".err").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{error}\n{told}") from error
    finally:
        processes.stop(process)


def write_overlay(directory: Path, shape: str) -> Path:
    """A catalogue directory with a model of each dialect that answers in `shape`, and limits that every call meets."""
    overlay = directory / "overlay"
    overlay.mkdir(exist_ok=True)
    (overlay / "models.yml").write_text(
        "models:\n"
        "- {name: bench_gpt, title: Bench, families: [gpt],"
        f" deployments: [{{provider: openai, model: gpt-bench{shape}}}]}}\n"
        "- {name: bench_claude, title: Bench, families: [claude],"
        f" deployments: [{{provider: anthropic, model: claude-bench{shape}}}]}}\n"
    )
    (overlay / "limits.yml").write_text(
        "- {name: requests, limit: 100M per minute per user}\n"
        "- {name: tokens, limit: 100M tokens per minute per instance}\n"
        "- {name: streams, limit: 100k concurrent streams per instance}\n"
    )
    return overlay


def need(program: str) -> None:
    """A program that Debian has under its own name, where it is missing and we may install it."""
    if shutil.which(program):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(f"bench: {program} is missing. Remedy: apt-get install {program}")
    subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", program], check=True, stdout=sys.stderr)


def _environment(directory: Path, provider_port: int) -> dict[str, str]:
    key = directory / "key.pem"
    if not key.exists():
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        key.write_bytes(
            made.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    nobody = f"http://127.0.0.1:{processes.free_port()}"
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(directory),
        "AIGW_STATE_DIR": str(directory / "state"),
        "AIGW_SELF_SIGNED_JWT__SIGNING_KEY_FILE": str(key),
        "AIGW_GITLAB_URL": nobody,
        "AIGW_CUSTOMER_PORTAL_URL": nobody,
        "ANTHROPIC_API_KEY": "bench-key",
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{provider_port}",
        "OPENAI_API_KEY": "bench-key",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{provider_port}",
    }


def token_headers(env: dict[str, str], *options: str) -> dict[str, str]:
    """The header lines of a fresh token, `Authorization` included."""
    command = [TORANA, "token", "new", "--headers", *options]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    lines = (line.partition(":") for line in done.stdout.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in lines}
