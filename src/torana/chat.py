"""Our words for a model call. Dialects translate between these and the vendors' formats.

All are immutable. `extra` carries a dialect's own members that have no word here, so that what
is read and written again in the same dialect is unchanged.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Role = Literal["system", "user", "assistant"]


class Text(msgspec.Struct, frozen=True, tag="text"):
    text: str
    cached: bool = False
    """The prompt up to here may be kept in the provider's prompt cache."""


class Image(msgspec.Struct, frozen=True, tag="image"):
    """A picture: its bytes, or where they are to be had."""

    media_type: str = ""
    """`image/png`; may be empty beside a URL."""
    data: str = ""
    """Base64, standard alphabet; empty where `url` says where it is."""
    url: str = ""
    cached: bool = False
    detail: str = ""
    """How closely it is to be looked at, in OpenAI's words: low, high, …; empty: as the model likes."""


class Document(msgspec.Struct, frozen=True, tag="document"):
    """A file to be read: its bytes, its text, or where it is to be had. One of the three is set."""

    media_type: str = ""
    """`application/pdf`; `text/plain` where `text` holds it all."""
    data: str = ""
    """Base64, standard alphabet."""
    url: str = ""
    text: str = ""
    title: str = ""
    """What the model is told of its name, `report.pdf`; may be empty."""
    cached: bool = False


class Thought(msgspec.Struct, frozen=True, tag="thought"):
    """The model's own reasoning, sent back with the conversation. Only `dialect` takes it for proven.

    signature  the provider's proof that it thought `text`; means something in `dialect` alone
    redacted   the thought itself, sealed: no text can be shown
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""
    dialect: str = ""


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call"):
    id: str
    name: str
    arguments: str
    """A JSON object as text, exactly as the model wrote it."""
    cached: bool = False
    is_freeform: bool = False
    """Of a tool that takes one text: the object's one member `input`. See `Tool.freeform`."""


class ToolResult(msgspec.Struct, frozen=True, tag="tool_result"):
    """Stands in a user message; `call_id` names the ToolCall that it answers."""

    call_id: str
    parts: "tuple[Text | Image | Document, ...]" = ()
    is_error: bool = False
    cached: bool = False
    is_freeform: bool = False
    """Of a tool that takes one text."""

    @property
    def text(self) -> str:
        """For formats in which a result is one text: its parts are paragraphs, as MCP servers tell one item in each."""
        return "\n\n".join(part.text for part in self.parts if isinstance(part, Text) and part.text)


class Foreign(msgspec.Struct, frozen=True, tag="foreign"):
    """A part that has no word here: a search that the provider ran itself. Only its own dialect writes it."""

    dialect: str
    kind: str
    """The dialect's name for it, `server_tool_use`."""
    value: dict[str, Any]
    is_aside: bool = False
    """The conversation makes sense without it: other dialects leave it out, where they refuse a voice message."""


Part = Text | Image | Document | Thought | ToolCall | ToolResult | Foreign


class Message(msgspec.Struct, frozen=True):
    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))


class Tool(msgspec.Struct, frozen=True):
    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    """JSON schema of the arguments."""
    cached: bool = False
    """The tools up to here may be kept in the provider's prompt cache."""
    strict: bool | None = None
    """The arguments follow the schema to the letter; None: as the provider is used to."""
    freeform: dict[str, Any] | None = None
    """Set for a tool that takes one text in place of arguments, where its format knows such: what it says of that text
    (dialects/freeform.py). `parameters` say the same for all others."""
    namespace: str = ""
    """What the name begins with, where its format tells that apart (dialects/namespaces.py)."""


class AnswerSchema(msgspec.Struct, frozen=True):
    """The answer is JSON of this shape."""

    name: str
    schema: dict[str, Any] = {}
    """JSON schema."""
    strict: bool | None = None
    description: str = ""


Effort = Literal["", "none", "minimal", "low", "medium", "high", "xhigh", "max"]


class Reasoning(msgspec.Struct, frozen=True):
    """How much the model shall think before it answers. Dialects know one or the other, and convert
    (dialects/thoughts.py)."""

    effort: Effort = ""
    """`none`: not at all. Empty: `budget_tokens` says; without that, as much as the model likes."""
    budget_tokens: int | None = None
    """Upper bound of the tokens spent on thinking, part of the answer's."""


class FillIn(msgspec.Struct, frozen=True, kw_only=True):
    """The code around a cursor, for completions."""

    prefix: str
    suffix: str = ""
    language: str = ""
    """Lower-case language name, `python`; empty when unknown."""
    file_name: str = ""
    context: str = ""
    """Attached code of other files, already joined and cut."""
    marked_prompt: str = ""
    """Prefix and suffix between the model family's own markers; text completions send this."""


AnswerForm = Literal["text", "code", "json", "react"]


class Draft(msgspec.Struct, frozen=True, eq=False):
    """A request as it was written for a model already (dialects/drafts.py)."""

    chat: "ChatRequest"
    dialect: str
    model: str
    members: dict[str, Any]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A request as its client wrote it. A provider of the same dialect gets these bytes, and the client its."""

    dialect: str
    body: bytes
    headers: dict[str, str] = {}
    """What else of the client's the provider may see, such as `anthropic-beta`."""
    query: str = ""
    """`?beta=true`, or empty."""
    is_read: bool = True
    """False: our words hold little of it, so that only its own dialect can send it."""
    allowed_tokens: int = 0
    """Then: how long its answer may be; 0: it does not say."""
    drafts: list[Draft] = []
    """At most one; gone when the request was sent."""


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One model call, ready to be written in any dialect."""

    messages: tuple[Message, ...]
    """In order; system messages may stand anywhere (dialects that know one system text join them)."""
    max_tokens: int | None = None
    output_limit: int = 0
    """Tokens that the model writes at most, for formats that demand a number where `max_tokens` names none; 0: nobody
    knows."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `any`, or the name of the one tool that must be called."""
    parallel_tool_calls: bool | None = None
    """False: one call at a time; None: as the provider is used to."""
    answer_schema: AnswerSchema | None = None
    wants_json: bool = False
    """The answer is a JSON object, of whatever shape."""
    reasoning: Reasoning | None = None
    """None: as the model is used to."""
    wants_scores: bool = False
    """The answer is to say how sure the model is of it, where its dialect can be asked; see `Chunk.score`."""
    choices: int = 1
    """How many answers are wanted; dialects without that ability give one."""
    carries_on: bool | None = None
    """A last turn of the assistant's is an answer that has begun. True: it goes out as it is; False: the model is asked
    to go on; None: as the model is used to."""
    wants_cache: bool = False
    """Its client's format has providers keep prompts unasked: for a model that keeps only what is marked, marks are set
    (dialects/cache_marks.py)."""
    user: str = ""
    """Opaque id of the end user, for session affinity where the provider supports it."""
    fill_in: FillIn | None = None
    answer: AnswerForm = "text"
    """What kind of text is expected; the demo provider writes accordingly."""
    stream: bool = True
    """False asks the provider for one JSON answer; it still comes back as chunks."""
    timeout_s: float | None = None
    """Patience for the first byte; None: the gateway's default."""
    tries: int | None = None
    """Sendings in all, the first included; None: the gateway's default."""
    hedge_after_s: float | None = None
    """Silence after which a second deployment is asked as well; 0: never; None: the model's."""
    extra: Mapping[str, Any] = {}
    extra_dialect: str = ""
    """The dialect that `extra` was read from; others leave it out. Empty: sent in whichever is written."""
    untaken: frozenset[str] = frozenset()
    """Members of OpenAI's format that its server turned out to refuse, and that have another name or say nothing of
    the answer."""
    unspoken: tuple[str, ...] = ()
    """What `extra` holds that no word here says, by name: `logit_bias`, `tools.web_search`. Other dialects lose it."""
    source: Source | None = None
    """Set where a client speaks a vendor's dialect to us. Whoever changes the words takes it away."""

    @property
    def is_begun(self) -> bool:
        """The last words are the assistant's: an answer that has begun."""
        last = self.messages[-1] if self.messages else None
        return last is not None and last.role == "assistant" and not any(isinstance(x, ToolCall) for x in last.parts)


class Usage(msgspec.Struct, frozen=True):
    """Whole tokens. `cache_*` are part of `input_tokens`, not on top; `reasoning_tokens` of output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    is_counted: bool = False
    """True: our own estimate, or none of the output was told, and books count it; False: the provider said so."""
    is_suspect: bool = False
    """The provider said a number that cannot be. These are the last ones that could; books count for themselves."""
    cache_write_1h_tokens: int = 0
    """Of `cache_write_tokens`: to be kept for an hour, at a price of their own."""
    tiers: tuple[str, ...] = ()
    """What of the provider's service was not the usual and has prices of its own, in its words: `fast`, `flex` …"""


FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "stop_sequence", "other"]


class ToolCallPiece(msgspec.Struct, frozen=True):
    """A piece of one tool call; `id` and `name` come with its first piece only."""

    position: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Chunk(msgspec.Struct, frozen=True):
    """A piece of the answer. The last chunk of an answer has `is_last`, and the final usage."""

    text: str = ""
    choice: int = 0
    """Which of several answers; 0 unless `ChatRequest.choices` asked for more."""
    reasoning: str = ""
    signature: str = ""
    """Proof of the thought whose pieces came before; see `Thought`."""
    redacted: str = ""
    """A whole thought, sealed; see `Thought`."""
    dialect: str = ""
    """Whose proof `signature` or `redacted` is; set with either, and on thoughts that need none to be taken back."""
    tool_call: ToolCallPiece | None = None
    finish: FinishReason | None = None
    is_refusal: bool = False
    """`text` says that the model will not answer: OpenAI's formats tell that apart from an answer."""
    stop_sequence: str = ""
    """Beside `finish`: which of `ChatRequest.stop` ended the answer, where the provider tells."""
    usage: Usage | None = None
    """Cumulative for the answer so far: the latest one stands."""
    score: float | None = None
    """Mean log probability of the answer's tokens, where it was asked for: 0 is sure, below is less so."""
    id: str = ""
    """The provider's id of the answer, on the first chunk."""
    model: str = ""
    """The model name the provider reports, on the first chunk."""
    raw: bytes = b""
    """The provider's own bytes, where the answer passes in the dialect it came in: whole events, or all of one
    JSON answer. The words beside it are what was seen in passing."""
    is_last: bool = False

    @property
    def says_something(self) -> bool:
        """False for greetings: until something is said, the call may still be given to another provider."""
        return bool(
            self.text or self.raw or self.reasoning or self.redacted or self.tool_call or self.finish or self.is_last
        )


class ModelWish(msgspec.Struct, frozen=True, kw_only=True):
    """Which model a request asks for, before anyone has looked it up. All may be empty.

    Looked at in this order: `is_own` (a client's own model server), `identifier`, `client_name`,
    `feature_setting`, `role`.
    """

    role: str = ""
    """An alias of the catalogue: completions_default, completions_fast, generation_default, chat_default."""
    feature_setting: str = ""
    usual_setting: str = ""
    """The feature setting of a request that names none; it counts where the operator has chosen a model for it."""
    identifier: str = ""
    """A catalogue identifier, or for a client's own server `<provider>/<model>`."""
    client_name: str = ""
    """`<model_provider>/<model_name>` as older clients send them."""
    is_own: bool = False
    """A self-hosted model: family, endpoint, key and identifier are the client's."""
    family: str = ""
    endpoint: str = ""
    api_key: str = msgspec.field(default="")
    as_text_completion: bool = False
    """The request is a code completion without a prompt of its own, which some families answer best raw."""
    is_flat: bool = False
    """It came the older way, which asks every family raw where there is no identifier."""

    def __repr__(self) -> str:  # the key must never reach a log
        return f"ModelWish({self.role or self.identifier or self.client_name or self.family!r})"
