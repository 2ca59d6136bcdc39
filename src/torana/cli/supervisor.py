"""Several workers: one process each on the same port, restarted when they die or are stuck, stopped together.

The parent imports what workers need and forks, so that a restart takes milliseconds. It serves nothing
itself: every worker answers on the metrics port for all of them.
"""

import ctypes
import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from torana.cli.pulse import LOOK_S, STUCK_LOOKS, Pulse
from torana.cli.telling import tell
from torana.errors import BadCatalogue, BadSetting
from torana.settings import Settings

SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
QUICK_DEATH_S = 5.0
"""A worker that dies younger than this is not restarted at once."""
MAX_BACKOFF_S = 30.0
FORK_AGAIN_S = 2.0
"""Until the system is asked again for a process that it did not give: it may be short of them, or of memory."""
BAD_CONFIGURATION = 2
"""Exit code of a worker that cannot start with what it was told."""
_PR_SET_PDEATHSIG = 1


def supervise(settings: Settings, sockets: tuple[socket.socket, socket.socket]) -> int:
    """Run `settings.serve.workers` workers until a signal; returns the exit code."""
    import torana.app  # noqa: F401 imported here once, so that every fork has it
    from torana.limits.shared_table import COUNTS_BYTES, HELD_BYTES
    from torana.shared_files import make_room, own_folder
    from torana.telemetry.shards import ARRAY_BYTES

    # Blocked and waited for, so that no signal falls between two looks.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    # Who started us may have ignored it, and then the system tells of no death.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    given = settings.serve.tables_dir
    with ExitStack() as stack:
        try:
            parent = Path(given or tempfile.gettempdir())
            parent.mkdir(parents=True, exist_ok=True)
            # Made anew: what an earlier server counted may have another form, and another one's is its own.
            directory = stack.enter_context(own_folder("torana-metrics-", parent))
            with tempfile.TemporaryFile(dir=directory) as file:
                make_room(file.fileno(), COUNTS_BYTES + settings.serve.workers * (HELD_BYTES + ARRAY_BYTES))
        except OSError as error:
            raise BadSetting(
                "PROMETHEUS_MULTIPROC_DIR",
                f"{given!r} cannot be used ({error.strerror})",
                "expected a folder that may be written and has some MB of room" + (", or nothing" if given else ""),
            ) from error
        return _Supervisor(settings, sockets, directory).run()


class _Supervisor:
    def __init__(self, settings: Settings, sockets: tuple[socket.socket, socket.socket], directory: Path) -> None:
        self.settings = settings
        self.addresses = [sock.getsockname()[:2] for sock in sockets]
        # Bound but not listening: they keep the ports while no worker lives.
        self.sockets = sockets
        self.directory = directory
        self.workers: dict[int, tuple[int, float]] = {}
        """Process id → its slot, from 0 on, and when it was born (monotonic seconds, as all moments here)."""
        self.due: dict[int, float] = {}
        """Slot → when it is forked again."""
        self.deaths: dict[int, int] = {}
        """Slot → quick deaths in a row; 1 after one that was not quick."""
        self.pulse = Pulse(settings.serve.workers)
        self.look_at = 0.0
        """When the pulses are looked at next."""
        self.is_stopping = False
        self.exit_code = 0
        # At the start all workers stumble over the same: who reads this byte says so, before any of them is ended.
        self.word, writer = os.pipe()
        os.write(writer, b"1")
        os.close(writer)

    def run(self) -> int:
        for slot in range(self.settings.serve.workers):
            self._fork(slot)
        while self.workers or self.due:
            wait_s = max(0.01, min([self.look_at, *self.due.values()]) - time.monotonic())
            caught = signal.sigtimedwait(SIGNALS, wait_s)
            if caught is not None and caught.si_signo == signal.SIGHUP:
                self._tell(signal.SIGHUP)
            elif caught is not None and caught.si_signo in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                if self.is_stopping or caught.si_signo == signal.SIGQUIT:
                    self._tell(signal.SIGKILL)
                    return 1
                self._stop()
            self._reap()
            now = time.monotonic()
            if now >= self.look_at:
                self.look_at = now + LOOK_S
                self._end_stuck()
            for slot in [slot for slot, due in self.due.items() if due <= now]:
                del self.due[slot]
                self._fork(slot)
        return self.exit_code

    def _fork(self, slot: int) -> None:
        _flush()
        parent = os.getpid()
        self.pulse.begin(slot)
        try:
            pid = os.fork()
        except OSError as error:  # the other workers have nothing to do with it
            tell(f"worker {slot} cannot be started ({error.strerror}); trying again in {FORK_AGAIN_S:g} s")
            self.due[slot] = time.monotonic() + FORK_AGAIN_S
            return
        if pid:
            self.workers[pid] = (slot, time.monotonic())
            return
        code = 1
        is_first_life = slot not in self.deaths
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS - {signal.SIGHUP})
            code = self._work(slot)
        except (BadSetting, BadCatalogue) as error:
            code = BAD_CONFIGURATION
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # whoever has read the byte is not ended before his word
            if not is_first_life or os.read(self.word, 1):
                tell(str(error))
        except Exception as error:  # noqa: BLE001 a forked child must never return into the parent's code
            tell(f"worker {slot}: {error}")
        finally:
            _flush()
            os._exit(code)

    def _work(self, slot: int) -> int:
        from torana.api.accepting import bind
        from torana.cli.serve import run_worker

        listening = [bind(host, port, shared=True) for host, port in self.addresses]
        for sock in self.sockets:
            sock.close()
        is_first = slot == 0 and not self.deaths.get(slot)
        beat = self.pulse.beater(slot)
        # One of all says what the settings have of unknown names.
        settings = self.settings if is_first else replace(self.settings, warnings=())
        return run_worker(settings, *listening, metrics_dir=self.directory, has_banner=is_first, beat=beat)

    def _end_stuck(self) -> None:
        """A worker that does not move keeps its share of the port, at the end all of us: who waits would for ever."""
        for pid, (slot, _) in self.workers.items():
            if self.pulse.look(slot, is_ending=self.is_stopping):
                seconds = STUCK_LOOKS * LOOK_S
                tell(f"worker {slot} (pid {pid}) has been stuck for {seconds:g} s")
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self.workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            # Of no worker: the first process of a container gets those that a dead one leaves, its trees' process too.
            slot, born = self.workers.pop(pid, (-1, 0.0))
            if slot < 0 or self.is_stopping:
                continue
            lived_s = time.monotonic() - born
            code = os.waitstatus_to_exitcode(status)
            if code == BAD_CONFIGURATION and slot not in self.deaths:
                # At the start this ends the server. Later the other workers go on with what they have read.
                self.exit_code = code
                self._stop()
                continue
            self.deaths[slot] = self.deaths.get(slot, 0) + 1 if lived_s < QUICK_DEATH_S else 1
            # The first death is mended at once; a crash loop backs off and never becomes a storm of forks.
            delay_s = 0.0 if self.deaths[slot] == 1 else min(MAX_BACKOFF_S, 0.5 * 2 ** (self.deaths[slot] - 2))
            tell(f"worker {slot} (pid {pid}) ended with {code}; restarting in {delay_s:g} s")
            self.due[slot] = time.monotonic() + delay_s

    def _stop(self) -> None:
        self.is_stopping = True
        self.due.clear()
        self._tell(signal.SIGTERM)

    def _tell(self, number: int) -> None:
        for pid in self.workers:
            os.kill(pid, number)


def _flush() -> None:
    with suppress(OSError):  # nobody reads it any more
        sys.stdout.flush()
        sys.stderr.flush()
