"""What a code request asks for, in our words: the endpoints fill these in, the gateway walks them.

The endpoints know the product's members and providers; everything behind them knows only orders.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from torana.chat import Message, ModelWish
from torana.code.languages import grammar_name, guess_language
from torana.code.trees import NO_TREES, Trees

Cleaning = Literal["none", "blank_only", "completion", "fast_completion", "codestral_completion", "generation"]
"""What `clean.clean` does to a collected answer (contract 6.7): nothing; white space only becomes empty;
the completion steps, with extras for the fast and the hosted codestral aliases; the generation steps."""

COMPLETIONS = ("completion", "fast_completion", "codestral_completion")
"""What completions are cleaned with, and what may take a syntax tree."""

GENERATIONS = ("generation", "blank_only")
"""What generations are cleaned with."""


class Attachment(msgspec.Struct, frozen=True):
    """Code of another place that the client adds."""

    kind: str
    name: str
    content: str


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """The file around the cursor."""

    prefix: str
    suffix: str = ""
    file_name: str = ""
    editor_language: str = ""
    """The editor's language id, as it came."""
    context: tuple[Attachment, ...] = ()
    trees: Trees = NO_TREES
    """Where the syntax trees for its answers are made."""

    @property
    def language(self) -> str:
        return guess_language(self.file_name, self.editor_language)

    @property
    def grammar(self) -> str:
        return grammar_name(self.file_name, self.editor_language)


class CompletionOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A few tokens at the cursor."""

    cursor: Cursor
    wish: ModelWish
    prompt: str | tuple[Message, ...] | None = None
    """The client's own prompt: a text is one user turn, messages are sent as they are; it replaces ours."""
    prompt_id: str = ""
    """Answer from this registry prompt, and say so in the answer (`agent`); empty: the default way."""
    cleaning: Cleaning = "completion"
    """For collected answers; streams of completions are never touched."""
    uses_context: bool = True
    """Whether `cursor.context` may enter the prompt (contract 6.6)."""
    context_share: float = 1.0
    """The part of the input budget that attachments may take."""
    max_tokens: int = 128
    """Output cap; a prompt file's own wins."""
    choices: int = 1
    stream: bool = False
    user: str = ""
    """Opaque id of the end user, for session affinity."""
    may_cache_prompt: bool = True
    """The provider may keep the head of the prompt, which is the same from call to call."""


class GenerationOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A longer piece of code from an instruction."""

    cursor: Cursor
    wish: ModelWish
    prompt: str | tuple[Message, ...] | None = None
    """The client's own prompt, sent in place of ours; None with `prompt_id`."""
    prompt_id: str = ""
    """Answer from this registry prompt, and say so in the answer; empty: `prompt`, or else the shipped one."""
    prompt_version: str | None = None
    """Version constraint for `prompt_id`; None: the registry's default."""
    instruction: str = ""
    """What the user asked for; may be empty (a comment above the cursor says it)."""
    inputs: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Further template inputs from the client."""
    cleaning: Cleaning = "generation"
    uses_context: bool = True
    context_share: float = 1.0
    max_tokens: int = 4096
    stop: tuple[str, ...] = ("</new_code>",)
    stream: bool = False
    user: str = ""
    may_cache_prompt: bool = True
    """The provider may keep the head of the prompt, which is the same from call to call."""

    @property
    def template_inputs(self) -> dict[str, Any]:
        """Inputs for the prompt, before any window is cut; the client's own win over ours, a null never."""
        ours = {
            "prefix": self.cursor.prefix,
            "suffix": self.cursor.suffix,
            "file_name": self.cursor.file_name,
            "language": self.cursor.language,
            "instruction": self.instruction,
            "user_instruction": self.instruction,
        }
        return ours | {name: value for name, value in self.inputs.items() if value is not None or name not in ours}
