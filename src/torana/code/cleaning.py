"""Answers of one worker, cleaned: where that takes a syntax tree, in a process beside it.

Chosen code makes a grammar take seconds, loop for ever, or end its process; see `code.trees`. The process starts
with the first answer that may need it, and is not missed: while there is none, brackets and indentation tell.
"""

import asyncio
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress

import msgspec
from msgspec.structs import replace as replace_fields

from torana.code.clean import clean
from torana.code.orders import Cleaning, Cursor
from torana.code.tree_process import LENGTH_BYTES, Job, framed
from torana.code.trees import TREES_ELSEWHERE, TreeWanted, may_have_tree

logger = logging.getLogger("torana.code")

WAIT_S = 1.0
"""For one answer to be cleaned: mostly a few milliseconds, 100 more where the process starts. Where somebody waited in
vain, nobody waits until it answers again."""
STUCK_S = 5.0
"""A process that has not answered for so long is ended; when it computes it ends itself long before."""
RESTART_S, MOST_RESTART_S = 1.0, 30.0
"""Between two starts, at least: each costs 100 ms of CPU time, and whoever sends such code can send more of it. It
doubles with each process that answered nobody: where one cannot be started, the next one cannot be either."""
LEAVE_S = 0.5
"""For a process to go by itself."""
MOST_WAITING = 500
"""Answers that come together in one moment are cleaned one after the other, in some 50 ms."""
_KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
"""What the process is told of our environment: no keys."""


class Cleaner:
    """Cleans answers, and owns the process for trees."""

    def __init__(self) -> None:
        self._jobs: asyncio.Queue[tuple[Job, asyncio.Future[str | None]]] = asyncio.Queue(MOST_WAITING)
        self._life: asyncio.Task[None] | None = None
        self._restart_s = RESTART_S
        self._is_away = False
        """The process has ended, or has kept somebody waiting in vain: who asks does without."""
        self._is_asked = False
        """It owes an answer."""

    def prepare(self, cursor: Cursor) -> None:
        """A completion is asked for: when its model has answered, the process should be there."""
        if self._life is None and may_have_tree(cursor.grammar):
            self._is_away = False
            self._life = asyncio.get_running_loop().create_task(self._live())

    async def clean(
        self, text: str, cursor: Cursor, cleaning: Cleaning, *, excluded: frozenset[str], is_cut: bool
    ) -> str:
        """As `code.clean.clean`; takes up to WAIT_S where chosen code keeps the process busy."""
        try:
            elsewhere = replace_fields(cursor, trees=TREES_ELSEWHERE)
            return clean(text, elsewhere, cleaning, excluded=excluded, is_cut=is_cut)
        except TreeWanted:
            self.prepare(cursor)
        cleaned = await self._ask(Job.of(text, cursor, cleaning, excluded, is_cut))
        return clean(text, cursor, cleaning, excluded=excluded, is_cut=is_cut) if cleaned is None else cleaned

    async def aclose(self) -> None:
        """End the process."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)

    async def _ask(self, job: Job) -> str | None:
        if self._is_away or self._jobs.full():
            return None
        cleaned: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait((job, cleaned))
        try:
            async with asyncio.timeout(WAIT_S):
                return await cleaned
        except TimeoutError:
            # Else it was the event loop that was late, and no answer is to come that would tell so.
            self._is_away = self._is_asked or not self._jobs.empty()
            return None

    async def _live(self) -> None:
        """One process, from its start to its end, and the rest before the next."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self._run()
        except (OSError, EOFError, TimeoutError, UnicodeError) as error:
            logger.warning(
                "the process for syntax trees ended, another one is started when it is needed",
                extra={"exception_class": type(error).__name__},
            )
        finally:
            self._is_away = True
            while not self._jobs.empty():
                _give_up(self._jobs.get_nowait()[1])
        await asyncio.sleep(began + self._restart_s - loop.time())
        self._restart_s = min(2 * self._restart_s, MOST_RESTART_S)
        self._life = None

    async def _run(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "torana.code.tree_process"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env={name: value for name in _KEPT if (value := os.environ.get(name)) is not None},
            start_new_session=True,  # a terminal's signals are not for it
        )
        try:
            await self._serve(process)
        finally:
            await _end(process)

    async def _serve(self, process: Process) -> None:
        """Job after job; raises OSError, EOFError or TimeoutError where the process is gone."""
        assert process.stdin is not None
        assert process.stdout is not None
        await _read(process.stdout)
        while True:
            if self._jobs.empty():
                self._is_away = False  # who waited for its start has left, and nobody asks it while it seems to be away
            job, cleaned = await self._jobs.get()
            if cleaned.done():  # nobody waits any more
                continue
            self._is_asked = True
            try:
                process.stdin.write(framed(msgspec.msgpack.encode(job)))
                told = await _read(process.stdout)
                self._is_away, self._restart_s = False, RESTART_S
                if not cleaned.done():
                    cleaned.set_result(told.decode())
            finally:
                self._is_asked = False
                _give_up(cleaned)


async def _read(stream: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(STUCK_S):
        return await stream.readexactly(int.from_bytes(await stream.readexactly(LENGTH_BYTES)))


async def _end(process: Process) -> None:
    """It goes when its stdin ends, if it can; else it is killed, whoever waits for that no more."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    await process.wait()


def _give_up(cleaned: asyncio.Future[str | None]) -> None:
    if not cleaned.done():
        cleaned.set_result(None)
