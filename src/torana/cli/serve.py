"""`torana serve`: settings, ports, one worker or several, signals, banner."""

import asyncio
import errno
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torana.cli.pulse import BEAT_S
from torana.cli.telling import STDERR, STDOUT, tell
from torana.environment import load_settings
from torana.errors import BadCatalogue, BadSetting
from torana.settings import Settings

if TYPE_CHECKING:
    from torana.app import Running

ISSUERS_MOMENT_S = 0.5
"""How long the banner waits for the issuers' first answers, so that it can name those that gave none."""

THREADS_S = 2.0
"""What threads are given at the end."""

MAX_FILES = 1 << 18

FLAGS = {
    "host": "AIGW_FASTAPI__API_HOST",
    "port": "AIGW_FASTAPI__API_PORT",
    "metrics_host": "AIGW_FASTAPI__METRICS_HOST",
    "metrics_port": "AIGW_FASTAPI__METRICS_PORT",
    "workers": "WEB_CONCURRENCY",
}


@click.command()
@click.option("--host", metavar="H", help="Address of the main port (127.0.0.1).")
@click.option("--port", metavar="N", help="Main port (5052).")
@click.option("--metrics-host", metavar="H", help="Address of the metrics port (that of the main port).")
@click.option("--metrics-port", metavar="N", help="Metrics port (8082).")
@click.option("--workers", metavar="N", help="Worker processes (1).")
@click.option(
    "--catalog", metavar="DIR", multiple=True, help="Catalogue directory laid over the shipped one; repeatable."
)
def serve(catalog: tuple[str, ...], **flags: str | None) -> None:
    """Serve until a signal. SIGTERM drains: running requests finish, then exit 0."""
    sys.exit(run_server(os.environ, {name: value for name, value in flags.items() if value is not None}, catalog))


def run_server(environ: Mapping[str, str], flags: Mapping[str, str], catalog: tuple[str, ...]) -> int:
    """Everything behind `torana serve`; returns the exit code of interface 2."""
    keep_standard_streams()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    # A reload that is asked for too early waits until there is something to reload, instead of ending us.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    named = {FLAGS[name]: value for name, value in flags.items()}
    if catalog:
        named["AIGW_CATALOG"] = ":".join(catalog)
    try:
        settings = load_settings(environ, Path(".env"), named)
        for folder in filter(None, settings.catalogue.overlays.split(":")):
            if not os.path.isdir(folder):
                raise BadSetting("AIGW_CATALOG", f"{folder!r} is no directory", "expected catalogue directories")
    except BadSetting as error:
        print(error, file=sys.stderr)
        return 2
    raise_file_limit()
    try:
        sockets = open_ports(settings)
        if settings.serve.workers > 1:
            from torana.cli.supervisor import supervise

            return supervise(settings, sockets)
        return run_worker(settings, *sockets, metrics_dir=None, has_banner=True)
    except BadPort as error:
        print(error, file=sys.stderr)
        return 1
    except (BadSetting, BadCatalogue) as error:
        print(error, file=sys.stderr)
        return 2


def keep_standard_streams() -> None:
    """Those that a daemon's parent has closed lead nowhere: a socket would have their numbers, and get the log."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = sys.stdout or open(STDOUT, "w", encoding="utf-8")  # noqa: SIM115 lives as long as the process
    sys.stderr = sys.stderr or open(STDERR, "w", encoding="utf-8")  # noqa: SIM115


def _leave(_number: int, _frame: object) -> None:
    """Nothing is served yet, so nothing is left to finish. In a container, nobody else would end its first process.

    At once: an exception could come in the middle of making the event loop, and that would complain.
    """
    os._exit(0)


def raise_file_limit() -> None:
    """As many open files as the system lets us have: every stream takes two, and the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class BadPort(Exception):
    """A port that cannot be had; reads as what is wrong and what helps."""


def open_ports(settings: Settings) -> tuple[socket.socket, socket.socket]:
    """The main and the metrics socket, bound; raises BadPort, or BadSetting."""
    serve = settings.serve
    shared = serve.workers > 1
    host = serve.metrics_host or serve.host
    if serve.port and (serve.host, serve.port) == (host, serve.metrics_port):
        raise BadSetting("AIGW_FASTAPI__METRICS_PORT", f"{serve.port} is the main port", "expected another")
    main = _open(serve.host, serve.port, "--port", "AIGW_FASTAPI__API_PORT", shared=shared)
    try:
        return main, _open(host, serve.metrics_port, "--metrics-port", "AIGW_FASTAPI__METRICS_PORT", shared=shared)
    except (BadPort, BadSetting):
        main.close()
        raise


def _open(host: str, port: int, flag: str, name: str, *, shared: bool) -> socket.socket:
    from torana.api.accepting import BACKLOG, bind

    try:
        sock = bind(host, port, shared=False)
        # Two that are bound and do not listen may have one port, and the loop keeps to itself that the second cannot.
        sock.listen(BACKLOG)
        if not shared:
            return sock
        # Exclusively first: sharing would hide another server on this port.
        port = sock.getsockname()[1]
        sock.close()
        return bind(host, port, shared=True)
    except UnicodeError as error:  # an empty or endless part between two dots
        raise BadSetting(
            name.replace("_PORT", "_HOST"), f"{host!r} is no name", "expected one, or an address"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BadPort(
                f"port {port} on {host} is in use by another program. Remedy: {flag} N (or {name}=N) with a free "
                f"port, or stop that program (ss -ltnp 'sport = :{port}' names it)"
            ) from error
        # The last two: a link's own address without its link, and a family that the system does not speak.
        elsewhere = (errno.EADDRNOTAVAIL, errno.EINVAL, errno.EAFNOSUPPORT)
        if isinstance(error, socket.gaierror) or error.errno in elsewhere:
            link = (
                f", such as {host}%eth0 with its link" if host.lower().startswith("fe80:") and "%" not in host else ""
            )
            raise BadSetting(
                name.replace("_PORT", "_HOST"),
                f"{host!r} is no address of this machine",
                f"expected one{link}, or its name",
            ) from error
        raise BadPort(f"cannot listen on {host} port {port}: {error.strerror}. Remedy: another {flag}") from error


def run_worker(
    settings: Settings,
    main: socket.socket,
    metrics: socket.socket,
    *,
    metrics_dir: Path | None,
    has_banner: bool,
    beat: Callable[[], None] | None = None,
) -> int:
    """Serve in this process until a signal; 0 after a drain, 1 after a second signal.

    beat  called all the time from the end of the start on, as long as the event loop moves; it is a supervisor that
          listens, and who ends this process at a second signal
    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, main, metrics, metrics_dir, has_banner, beat))


async def _serve(
    settings: Settings,
    main: socket.socket,
    metrics: socket.socket,
    metrics_dir: Path | None,
    has_banner: bool,
    beat: Callable[[], None] | None,
) -> int:
    from torana.app import start

    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def end() -> None:
        """At once, whatever still runs."""
        os._exit(1)

    def stop() -> None:
        # systemd and terminals tell every process, and the supervisor tells its workers: theirs are not counted.
        if stopping.is_set() and beat is None:
            end()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGQUIT, end)  # the system's way would leave a file with all secrets in it
    running = await start(settings, main_socket=main, metrics_socket=metrics, metrics_dir=metrics_dir)
    beating = loop.create_task(_keep_beating(beat)) if beat is not None else None
    loop.add_signal_handler(signal.SIGHUP, running.reloader.request)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    greeting = loop.create_task(_greet(settings, running)) if has_banner else None
    await stopping.wait()
    if greeting is not None:
        greeting.cancel()
    await running.drain()
    await running.aclose()
    if beating is not None:
        beating.cancel()
    # The interpreter waits for every thread, and one may stand in a pipe that nobody reads, or in a frozen database.
    late = threading.Timer(THREADS_S, os._exit, (0,))
    late.daemon = True
    late.start()
    return 0


async def _keep_beating(beat: Callable[[], None]) -> None:
    while True:
        beat()
        await asyncio.sleep(BEAT_S)


async def _greet(settings: Settings, running: "Running") -> None:
    """The banner, once the issuers have had a moment to answer."""
    from torana.cli.banner import write_banner
    from torana.start_checks import ask_store

    store = asyncio.ensure_future(ask_store(settings, ISSUERS_MOMENT_S))
    await asyncio.sleep(ISSUERS_MOMENT_S)
    tell(write_banner(settings, running, await store))
