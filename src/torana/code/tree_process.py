"""`python -m torana.code.tree_process`: cleans answers with syntax trees, one after the other, for `code.cleaning`.

On stdin come jobs, on stdout go cleaned texts, each behind its length in four bytes; the first, empty one says that
the process is ready. It ends with its stdin, and where one job takes more than LIMIT_S of CPU time: by a signal
whose default it is, because no handler of Python's would get a turn.
"""

import os
import signal
import sys
from typing import BinaryIO

import msgspec

from torana.code.clean import clean
from torana.code.orders import Cleaning, Cursor
from torana.code.trees import PATIENCE_S, Trees

LIMIT_S = 2 * PATIENCE_S
LENGTH_BYTES = 4


class Job(msgspec.Struct, array_like=True, frozen=True):
    """One answer to be cleaned: the arguments of `clean`, and what they need of the cursor."""

    text: str
    prefix: str
    suffix: str
    file_name: str
    editor_language: str
    cleaning: Cleaning
    excluded: frozenset[str]
    is_cut: bool

    @classmethod
    def of(cls, text: str, cursor: Cursor, cleaning: Cleaning, excluded: frozenset[str], is_cut: bool) -> "Job":
        return cls(
            text=text,
            prefix=cursor.prefix,
            suffix=cursor.suffix,
            file_name=cursor.file_name,
            editor_language=cursor.editor_language,
            cleaning=cleaning,
            excluded=excluded,
            is_cut=is_cut,
        )

    def run(self) -> str:
        cursor = Cursor(
            prefix=self.prefix,
            suffix=self.suffix,
            file_name=self.file_name,
            editor_language=self.editor_language,
            trees=Trees(),
        )
        return clean(self.text, cursor, self.cleaning, excluded=self.excluded, is_cut=self.is_cut)


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(LENGTH_BYTES) + payload


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to every process; the end of stdin says when to go
        signal.signal(number, signal.SIG_IGN)
    jobs, texts = sys.stdin.buffer, sys.stdout.buffer
    decoder = msgspec.msgpack.Decoder(Job)
    _write(texts, b"")
    while len(length := jobs.read(LENGTH_BYTES)) == LENGTH_BYTES:
        job = decoder.decode(jobs.read(int.from_bytes(length)))
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        cleaned = job.run()
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(texts, cleaned.encode())


def _write(texts: BinaryIO, payload: bytes) -> None:
    texts.write(framed(payload))
    texts.flush()


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(0)  # nobody listens any more; a last flush would fail as well
