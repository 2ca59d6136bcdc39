"""What can be asked of a model: prompts, code, steps, a client's own words. Each is rendered, and sent on its walk."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace as replace_fields

from torana.agents.step import PROMPT_ID as STEP_PROMPT
from torana.agents.step import StepOrder, step_inputs
from torana.answers import Answer, Embedded
from torana.caller import Caller, Permit
from torana.chat import ChatRequest, FillIn, Message, ModelWish, Text
from torana.code.cleaning import Cleaner
from torana.code.fill_in import FORMATS, mark_cursor
from torana.code.fitting import Room, fit_order, fit_request
from torana.code.languages import extension_of
from torana.code.orders import COMPLETIONS, CompletionOrder, Cursor, GenerationOrder
from torana.code.window import Window
from torana.code_answers import CodeAnswer
from torana.dialects.embedding_dialect import EmbeddingsRequest
from torana.errors import ProviderError, ProviderRefused, ProviderRefusedKey
from torana.facts import Facts
from torana.limits.estimate import input_tokens
from torana.prompts.marks import mark_system, unmark
from torana.prompts.prompt import Prompt
from torana.prompts.registry import Prompts
from torana.routing.models import CHAT, Model, refuse_unable
from torana.settings import CatalogueSettings
from torana.vocabulary import CountingThread
from torana.walk import Walk, place

logger = logging.getLogger("torana.gateway")

COMPLETION_PROMPT = "code_suggestions/completions"
GENERATION_PROMPT = "code_suggestions/generations"

VARIETY = 0.4
"""Temperature of several choices whose prompt asks for none."""


class TokenCount(NamedTuple):
    """How long a prompt is."""

    tokens: int
    is_exact: bool
    """False: nobody counted, we estimated."""
    headers: list[tuple[bytes, bytes]]
    """They tell whose tokens these are."""


class Gateway:
    """What the gateway can do with an authorized call. Every way in asks for a Permit."""

    def __init__(
        self,
        prompts: Prompts,
        walk: Walk,
        settings: CatalogueSettings,
        counting: CountingThread | None = None,
        cleaner: Cleaner | None = None,
    ) -> None:
        """
        counting, cleaner  shared by the gateways of all catalogues; None: one of its own
        """
        self.settings = settings
        self.prompts = prompts
        self.walk = walk
        self.models = walk.models
        self.router = walk.router
        self.sender = walk.sender
        self.metrics = walk.metrics
        self.counting = counting or CountingThread()
        self.cleaner = cleaner or Cleaner()
        self.left_out = frozenset(settings.excl_post_process)

    def find_prompt(
        self, prompt_id: str, constraint: str | None, wish: ModelWish, caller: Caller
    ) -> tuple[Prompt, Model]:
        """The prompt file and the model that a request for `prompt_id` leads to; raises Refusal or Invalid."""
        is_completion = prompt_id == COMPLETION_PROMPT
        model = self.models.find_completing(wish) if is_completion else self.models.find(wish)
        model = self.router.inside(caller, model)
        prompt = self.prompts.find(prompt_id, constraint, model.families)
        refuse_unable(model, prompt.needs - CHAT if is_completion else prompt.needs)
        return prompt, model

    async def run_prompt(
        self,
        permit: Permit,
        prompt: Prompt,
        model: Model,
        inputs: Mapping[str, Any],
        facts: Facts,
        *,
        stream: bool,
        user: str = "",
        may_cache: bool = True,
    ) -> Answer:
        """A named prompt, filled in and answered. Returns once the first batch is in.

        may_cache  the provider may keep the head of the prompt, which is the same for everybody
        """
        self.walk.look(permit, place(model, prompt), facts)
        if prompt.id in (COMPLETION_PROMPT, GENERATION_PROMPT):
            chat = await self._fit_code(prompt, model, inputs)
        else:
            chat = self.prompts.render(prompt, inputs, model_params=model.params)
        if not may_cache:
            chat = unmark(chat)
        chat = replace_fields(chat, stream=stream, user=user)
        return await self.walk.answer(permit, model, chat, facts, prompt=prompt)

    async def _fit_code(self, prompt: Prompt, model: Model, inputs: Mapping[str, Any]) -> ChatRequest:
        """A named prompt for code, with as much of what surrounds the cursor as the model has room for."""
        cursor = Cursor(
            prefix=_text_of(inputs, "prefix") or _text_of(inputs, "trimmed_content_above_cursor"),
            suffix=_text_of(inputs, "suffix") or _text_of(inputs, "trimmed_content_below_cursor"),
        )
        is_marked = bool(model.fill_in) and prompt.id == COMPLETION_PROMPT

        def render(window: Window) -> ChatRequest:
            chat = self.prompts.render(prompt, _cut_alike(inputs, window), model_params=model.params)
            return _mark(chat, model, cursor, window) if is_marked else chat

        return (await fit_request(cursor, self._room(model), 0, render))[1]

    async def complete(self, permit: Permit, order: CompletionOrder, facts: Facts) -> CodeAnswer:
        """A few tokens at the cursor: marked for families that know fill-in-the-middle, else an instruction."""
        model = self.router.inside(permit.caller, self.models.find_completing(order.wish))
        prompt = None
        if order.prompt is None:
            prompt = self.prompts.find(order.prompt_id or COMPLETION_PROMPT, None, model.families)
        self.walk.look(permit, place(model, prompt), facts)

        def render(window: Window) -> ChatRequest:
            if prompt is None:
                return _ask_as_given(order.prompt or "", model, order.cursor, window)
            inputs = {**_window_inputs(order.cursor, window), "context": window.context}
            chat = self.prompts.render(prompt, inputs, model_params=model.params)
            return _mark(chat, model, order.cursor, window)

        window, chat = await fit_order(order, self._room(model), render)
        # Fast completions stay short, whatever the prompt file allows.
        is_fast = order.cleaning == "fast_completion"
        chat = replace_fields(
            chat,
            choices=max(1, order.choices),
            # Without any, all choices are one; vLLM refuses to make them.
            temperature=VARIETY if order.choices > 1 and chat.temperature == 0 else chat.temperature,
            max_tokens=order.max_tokens if is_fast else chat.max_tokens or order.max_tokens,
            wants_scores=(
                is_fast
                and not order.stream
                and bool(self.settings.score_thresholds)
                and "drop_unsure" not in self.left_out
            ),
        )
        return await self._suggest(permit, model, chat, order, window, prompt, facts)

    async def generate(self, permit: Permit, order: GenerationOrder, facts: Facts) -> CodeAnswer:
        """A longer piece of code from an instruction."""
        model = self.router.inside(permit.caller, self.models.find(order.wish))
        prompt = None
        if order.prompt is None or order.prompt_id:
            constraint = order.prompt_version if order.prompt_id else None
            prompt = self.prompts.find(order.prompt_id or GENERATION_PROMPT, constraint, model.families)
        self.walk.look(permit, place(model, prompt), facts)

        def render(window: Window) -> ChatRequest:
            if prompt is None:
                return _ask_as_given(order.prompt or "", model, order.cursor, window)
            inputs = {**_cut_alike(order.template_inputs, window), **_window_inputs(order.cursor, window)}
            inputs["context"] = window.context
            chat = self.prompts.render(prompt, inputs, model_params=model.params)
            return replace_fields(chat, fill_in=_aside(model, order.cursor, window))

        window, chat = await fit_order(order, self._room(model), render)
        chat = replace_fields(chat, max_tokens=chat.max_tokens or order.max_tokens, stop=chat.stop or order.stop)
        return await self._suggest(permit, model, chat, order, window, prompt, facts)

    async def _suggest(
        self,
        permit: Permit,
        model: Model,
        chat: ChatRequest,
        order: CompletionOrder | GenerationOrder,
        window: Window,
        prompt: Prompt | None,
        facts: Facts,
    ) -> CodeAnswer:
        """What completions and generations have in common: counted, sent, and cleaned on the way back."""
        cursor = order.cursor
        self.metrics.suggestion_language(
            cursor.language, extension_of(cursor.file_name), cursor.editor_language.strip().lower()
        )
        model = place(model, prompt)
        chat = replace_fields(chat, answer="code", stream=order.stream, user=order.user)
        if not order.may_cache_prompt:
            chat = unmark(chat)
        named = prompt
        if not order.prompt_id:
            # The default way only borrows the registry's prompt: its name and its patience are not the endpoint's.
            named, chat = None, replace_fields(chat, timeout_s=None)
        if not order.stream and order.cleaning in COMPLETIONS:
            self.cleaner.prepare(cursor)
        answer = await self.walk.answer(permit, model, chat, facts, prompt=named, rendered=prompt, is_suggestion=True)
        least = (
            self.settings.score_thresholds.get(answer.upstream_model.rpartition("/")[2]) if chat.wants_scores else None
        )
        return CodeAnswer(answer, cursor, order.cleaning, window, self.cleaner, self.left_out, least)

    async def step(self, permit: Permit, order: StepOrder, facts: Facts) -> Answer:
        """One step of a ReAct loop that the client runs."""
        model = self.router.inside(permit.caller, self.models.find(order.wish))
        prompt = self.prompts.find(STEP_PROMPT, None, model.families)
        self.walk.look(permit, place(model, prompt), facts)
        chat = self.prompts.render(prompt, step_inputs(order), model_params=model.params)
        chat = replace_fields(
            chat,
            user=order.user,
            timeout_s=chat.timeout_s or self.settings.chat_timeout_s,
        )
        return await self.walk.answer(permit, model, chat, facts, prompt=prompt)

    async def answer_as_demo(self, permit: Permit, chat: ChatRequest, facts: Facts) -> Answer:
        """The built-in demo, asked in a vendor's own dialect."""
        return await self.walk.answer(permit, self.models.find(ModelWish(identifier="demo")), chat, facts)

    async def embed_as_demo(self, permit: Permit, request: EmbeddingsRequest, facts: Facts) -> Embedded:
        """The built-in demo's vectors, asked for in a vendor's own dialect."""
        return await self.walk.embed(permit, self.models.find(ModelWish(identifier="demo")), request, facts)

    def _room(self, model: Model) -> Room:
        return Room(input_tokens=model.input_limit, vocabulary=model.vocabulary, counting=self.counting)

    def look(self, permit: Permit, model: Model, facts: Facts) -> None:
        """Before a client's own prompt is read: raises Refusal 503 where `ask` would, for want of room."""
        self.walk.look(permit, self.router.inside(permit.caller, model), facts)

    async def ask(self, permit: Permit, model: Model, chat: ChatRequest, facts: Facts) -> Answer:
        """A client's own prompt, sent as it is."""
        allowed = self.router.inside(permit.caller, model)
        if allowed is not model and allowed.output_limit < chat.output_limit:
            chat = replace_fields(chat, output_limit=allowed.output_limit)
        return await self.walk.answer(permit, allowed, chat, facts)

    async def count_tokens(self, permit: Permit, model: Model, chat: ChatRequest) -> TokenCount:
        """How many tokens a prompt is, as its provider says; where it cannot or is left alone, we estimate.

        Raises ProviderRefused where the provider has something against the prompt itself.
        """
        headers: list[tuple[bytes, bytes]] = []
        counted: int | None = None
        try:
            route = await self.router.pick(permit, self.router.inside(permit.caller, model))
            first = route.candidates[0]
            headers = self.walk.headers_of(first.deployment, None, model)
            if first.health.may_be_asked(self.router.traffic.clock.monotonic()):
                counted = await self.sender.count(first.deployment, chat)
        except ProviderError as error:
            if isinstance(error, ProviderRefused) and _is_about_the_prompt(error):
                raise
            # Clients count often and by the way; an estimate serves them better than a failure.
            logger.log(
                logging.ERROR if isinstance(error, ProviderRefusedKey) else logging.WARNING,
                "counting failed, tokens are estimated",
                extra={"code": error.code, "where": error.where, "reason": error.reason},
            )
        return TokenCount(input_tokens(chat) if counted is None else counted, counted is not None, headers)

    def speaks(self, model: Model, dialect: str) -> bool:
        """True where one of this model's deployments takes a client's bytes in `dialect` as they are."""
        return any(self.sender.speaks(each, dialect) for each in model.deployments)


def _is_about_the_prompt(error: ProviderRefused) -> bool:
    """Whether counting failed for what was asked: servers that follow Anthropic need not have the path at all."""
    if error.upstream_code == 404:
        return error.kind == "not_found_error"
    return error.upstream_code in (400, 413, 422)


def _mark(chat: ChatRequest, model: Model, cursor: Cursor, window: Window) -> ChatRequest:
    """A rendered completion, with the cursor marked for families that know how to be asked so."""
    if not model.fill_in:
        # A client's own server gets the instruction as text: few of them take prefix and suffix apart.
        is_sent_apart = model.deployments[0].as_text_completion and not model.is_own
        return replace_fields(
            chat, fill_in=_fill_in(cursor, window) if is_sent_apart else _aside(model, cursor, window)
        )
    marked = mark_cursor(model.fill_in, window.prefix, window.suffix, window.context)
    fill_in = replace_fields(_fill_in(cursor, window), marked_prompt=marked)
    return replace_fields(chat, fill_in=fill_in, stop=FORMATS[model.fill_in].stop)


def _ask_as_given(prompt: str | tuple[Message, ...], model: Model, cursor: Cursor, window: Window) -> ChatRequest:
    """A client's own prompt: a text is one user turn, messages are sent as they are."""
    messages = (Message("user", (Text(prompt),)),) if isinstance(prompt, str) else mark_system(prompt)
    return ChatRequest(messages=messages, carries_on=True, fill_in=_aside(model, cursor, window))


def _aside(model: Model, cursor: Cursor, window: Window) -> FillIn | None:
    """The code around the cursor beside messages that say all; text completions would send it in their place."""
    return None if model.deployments[0].as_text_completion else _fill_in(cursor, window)


def _fill_in(cursor: Cursor, window: Window) -> FillIn:
    return FillIn(
        prefix=window.prefix,
        suffix=window.suffix,
        language=cursor.language,
        file_name=cursor.file_name,
        context=window.context,
    )


def _text_of(inputs: Mapping[str, Any], name: str) -> str:
    value = inputs.get(name)
    return value if isinstance(value, str) else ""


def _window_inputs(cursor: Cursor, window: Window) -> dict[str, Any]:
    return {
        "prefix": window.prefix,
        "suffix": window.suffix,
        "file_name": cursor.file_name,
        "language": cursor.language,
    }


def _cut_alike(inputs: Mapping[str, Any], window: Window) -> Mapping[str, Any]:
    """Inputs that hold the code around the cursor, no longer than there is room for.

    Templates prefer what the client trimmed itself.
    """
    if not window.is_cut:
        return inputs
    kept = {
        "prefix": window.prefix,
        "suffix": window.suffix,
        "trimmed_content_above_cursor": window.prefix,
        "trimmed_content_below_cursor": window.suffix,
    }
    return {**inputs, **{name: text for name, text in kept.items() if len(_text_of(inputs, name)) > len(text)}}
