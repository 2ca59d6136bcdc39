"""What a dialect is: a wire format as pure functions, bytes ↔ our words. No I/O, no clock, no settings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torana.chat import ChatRequest, Chunk, FinishReason, Usage
from torana.errors import ProviderError, ProviderRefused


class EventReader(Protocol):
    """Reads one streamed answer.

    Both methods raise ProviderBroke for what is no answer, and ProviderRefused for an error that is told
    within the stream; never before the chunks that came ahead of it were given out.
    """

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that `data` completes. What follows the terminal event is not read."""
        ...

    def close(self) -> list[Chunk]:
        """The body has ended; raises ProviderBroke unless the dialect's terminal event was seen."""
        ...


class EventWriter(Protocol):
    """Writes one streamed answer."""

    def write(self, chunks: list[Chunk]) -> bytes:
        """Events for `chunks`, the terminal one included when a chunk has `is_last`. May be empty."""
        ...

    def error(self, status: int, code: str, message: str) -> bytes:
        """The dialect's error event, after which nothing is written."""
        ...


class RelayScan(Protocol):
    """Watches a stream that is passed on as it comes. Never raises; what it cannot read it skips."""

    def feed(self, data: bytes) -> None: ...

    @property
    def usage(self) -> Usage | None:
        """The latest the provider said."""
        ...

    @property
    def model(self) -> str:
        """The name the provider reports; empty until it has."""
        ...

    @property
    def finish(self) -> FinishReason | None:
        """Why the answer ended, as far as that is seen in passing."""
        ...

    @property
    def is_complete(self) -> bool:
        """The dialect's terminal event was seen."""
        ...

    @property
    def failure(self) -> ProviderError | None:
        """What the terminal event tells in place of an end."""
        ...


class WriteEvents(Protocol):
    def __call__(self, model: str, id: str, created: int, asked: ChatRequest | None = None, /) -> EventWriter:
        """The writer of one stream.

        created  Unix seconds
        asked    the request, where the shape of the answer depends on how it was asked
        """
        ...


class WriteAnswer(Protocol):
    def __call__(
        self, chunks: list[Chunk], model: str, id: str, created: int, asked: ChatRequest | None = None, /
    ) -> bytes:
        """One JSON answer; the rest as for a stream."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedDialect:
    """A format that clients speak to us.

    read_request       body → the call and the model's name; raises Invalid
    write_error        (status, code, message, request id) → JSON error
    write_error_event  (status, code, message) → event for the end of a relayed stream that broke
    scan_answer        a relayed JSON answer → what it says it used; never raises
    """

    name: str
    path: str
    """Where the vendors serve it: `/v1/messages`."""
    read_request: Callable[[bytes], tuple[ChatRequest, str]]
    write_events: WriteEvents
    write_answer: WriteAnswer
    write_error: Callable[[int, str, str, str], bytes]
    write_error_event: Callable[[int, str, str], bytes]
    scan_events: Callable[[], RelayScan]
    scan_answer: Callable[[bytes], Usage | None]


class WriteRequest(Protocol):
    def __call__(self, chat: ChatRequest, model: str, *, stream: bool) -> bytes:
        """The body that asks `model`; raises Invalid for what cannot be left out and cannot be said.

        What can be left out is, and `losses` names it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect(ServedDialect):
    """A format that we also speak to providers.

    losses       (chat, model) → what of the request `write_request` leaves out, in alphabetical order: words as
                 `top_k`, `tool.strict`, `thought`, and members of the client's own dialect as `logit_bias`. A loss
                 that changes no answer, as of marks for a cache, is none. Raises Invalid as `write_request` does
    read_answer  one JSON answer → chunks, the last one with `is_last`; raises ProviderBroke, ProviderRefused
    read_error   (status, body) → the error, whatever the body is
    """

    write_request: WriteRequest
    losses: Callable[[ChatRequest, str], tuple[str, ...]]
    read_events: Callable[[], EventReader]
    read_answer: Callable[[bytes], list[Chunk]]
    read_error: Callable[[int, bytes], ProviderRefused]
    tells_usage_when_asked: bool = False
    """A stream ends with its usage only where the request asks for that in `stream_options`."""
    passes_on: bool = True
    """A client's bytes in this dialect go on as they came; false for a vendor that would refuse them."""
