"""A request whose code fits into the model's input, instructions and markers included.

The estimate decides where it is sure; where it is not, and the model's own tokenizer is there, tokens are counted.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from torana.chat import ChatRequest
from torana.code.orders import CompletionOrder, Cursor, GenerationOrder
from torana.code.window import Window, fit
from torana.counting import BYTES_PER_TOKEN, count_bytes
from torana.vocabulary import CountingThread, NotCounted, TokenRuler, Vocabulary

TURN_TOKENS = 16
"""What a model's chat template puts around a turn, at most."""
_ROUNDS = 4
"""Cutting in one place changes a few tokens there; each round takes off what the one before had too many."""

Render = Callable[[Window], ChatRequest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a model reads, and who counts for it."""

    input_tokens: int
    """Its whole input, the answer included."""
    vocabulary: Vocabulary | None = None
    counting: CountingThread


async def fit_order(order: CompletionOrder | GenerationOrder, room: Room, render: Render) -> tuple[Window, ChatRequest]:
    """The code that the model has room for, and the request that `render` makes of it."""
    return await fit_request(
        order.cursor, room, order.max_tokens, render,
        context_share=order.context_share, uses_context=order.uses_context,
    )  # fmt: skip


async def fit_request(
    cursor: Cursor,
    room: Room,
    output_tokens: int,
    render: Render,
    *,
    context_share: float = 1.0,
    uses_context: bool = True,
) -> tuple[Window, ChatRequest]:
    """As `fit_order`, for code without an order. `output_tokens` are kept free, unless the request says how many."""
    cut = partial(fit, cursor, context_share=context_share, uses_context=uses_context)
    window = cut(room.input_tokens - output_tokens)
    chat = render(window)
    tokens = room.input_tokens - (chat.max_tokens or output_tokens)
    size = sum(map(count_bytes, _texts_of(chat)))
    # No tokenizer makes more tokens of a text than it has bytes.
    if not window.is_cut and size + TURN_TOKENS * len(chat.messages) <= tokens:
        return window, chat
    if room.vocabulary is not None:
        try:
            return await _fit_counted(cut, room.vocabulary, room.counting, tokens, render, window, chat)
        except NotCounted:
            pass
    # A prompt file that wants a shorter answer leaves more room than was reckoned with.
    is_short = window.is_cut and tokens > room.input_tokens - output_tokens
    for _ in range(_ROUNDS):
        over = -int(-sum(map(count_bytes, _texts_of(chat))) // BYTES_PER_TOKEN) - tokens
        if over <= 0 and not is_short:
            break
        code = sum(map(count_bytes, (window.prefix, window.suffix, window.context)))
        if over > 0 and not code:  # what is too long is not the code's, and another rendering would be the same
            break
        window, is_short = cut(int(code // BYTES_PER_TOKEN) - over), False
        chat = render(window)
    return window, chat


async def _fit_counted(
    cut: "partial[Window]",
    vocabulary: Vocabulary,
    counting: CountingThread,
    tokens: int,
    render: Render,
    window: Window,
    chat: ChatRequest,
) -> tuple[Window, ChatRequest]:
    """From a window that was cut by the estimate, for better or worse, to one that is cut by count."""

    def count(counted: ChatRequest) -> Awaitable[int]:
        return counting.run(_count, vocabulary, counted)

    if not window.is_cut and await count(chat) <= tokens:
        return window, chat
    # Counting is dear: not what the estimate cut, but what is there without any code, and what comes of it.
    left = tokens - await count(render(Window("", "", is_cut=True)))
    ruler = TokenRuler(vocabulary)
    for _ in range(_ROUNDS):
        window = await counting.run(cut, max(0, left), ruler=ruler)
        chat = render(window)
        over = await count(chat) - tokens
        if over <= 0 or left <= 0:
            break
        left -= over
    return window, chat


def _count(vocabulary: Vocabulary, chat: ChatRequest) -> int:
    texts = _texts_of(chat)
    is_marked = chat.fill_in is not None and bool(chat.fill_in.marked_prompt)
    return sum(map(vocabulary.count, texts)) + (0 if is_marked else TURN_TOKENS * len(texts))


def _texts_of(chat: ChatRequest) -> list[str]:
    marked = chat.fill_in.marked_prompt if chat.fill_in is not None else ""
    return [marked] if marked else [message.text for message in chat.messages]
