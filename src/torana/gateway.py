"""THE WALK: one call through the rooms, a line per room. Rendering, choosing and leaving meet here."""

import time
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace as replace_fields

from torana.agents.step import PROMPT_ID as STEP_PROMPT
from torana.agents.step import StepOrder, step_inputs
from torana.answers import Answer, CodeAnswer, Labels, Relay, record_inference
from torana.caller import Permit
from torana.chat import ChatRequest, FillIn, Message, ModelWish, Text
from torana.code.fill_in import FORMATS, mark_cursor
from torana.code.orders import CompletionOrder, Cursor, GenerationOrder
from torana.code.window import Window, fit
from torana.errors import ProviderError
from torana.prompts.prompt import Prompt
from torana.prompts.registry import Prompts
from torana.providers.send import Sender
from torana.routing.models import Model, Models
from torana.routing.router import Flow, Router
from torana.settings import CatalogueSettings
from torana.telemetry.metrics import Metrics

COMPLETION_PROMPT = "code_suggestions/completions"
GENERATION_PROMPT = "code_suggestions/generations"


class Gateway:
    """What the gateway can do with an authorized call. Every way in asks for a Permit."""

    def __init__(
        self,
        prompts: Prompts,
        models: Models,
        router: Router,
        sender: Sender,
        metrics: Metrics,
        settings: CatalogueSettings,
        *,
        detail_headers: bool,
    ) -> None:
        self.settings = settings
        self.prompts = prompts
        self.models = models
        self.router = router
        self.sender = sender
        self.metrics = metrics
        self.detail_headers = detail_headers

    def find_prompt(self, prompt_id: str, constraint: str | None, wish: ModelWish) -> tuple[Prompt, Model]:
        """The prompt file and the model that a request for `prompt_id` leads to; raises Refusal or Invalid."""
        model = self.models.find(wish)
        return self.prompts.find(prompt_id, constraint, model.families), model

    async def run_prompt(
        self,
        permit: Permit,
        prompt: Prompt,
        model: Model,
        inputs: Mapping[str, Any],
        facts: dict[str, Any],
        *,
        stream: bool,
        user: str = "",
    ) -> Answer:
        """A named prompt, filled in and answered. Returns once the first batch is in."""
        chat = self.prompts.render(prompt, inputs, model_params=model.params)
        chat = replace_fields(chat, stream=stream, user=user)
        return await self._answer(permit, model, chat, facts, prompt=prompt)

    async def complete(self, permit: Permit, order: CompletionOrder, facts: dict[str, Any]) -> CodeAnswer:
        """A few tokens at the cursor: marked for families that know fill-in-the-middle, else an instruction."""
        model = self.models.find(order.wish)
        window = fit(
            order.cursor,
            model.input_limit - order.max_tokens,
            context_share=order.context_share,
            uses_context=order.uses_context,
        )
        fill_in = _fill_in(order.cursor, window, model.fill_in)
        prompt = None
        if order.prompt is not None:
            chat = ChatRequest(messages=_own_messages(order.prompt), max_tokens=order.max_tokens)
        elif model.fill_in:
            chat = ChatRequest(messages=(), max_tokens=order.max_tokens, stop=FORMATS[model.fill_in].stop)
        elif model.deployments[0].as_text_completion:
            chat = ChatRequest(messages=(), max_tokens=order.max_tokens)
        else:
            prompt = self.prompts.find(order.prompt_id or COMPLETION_PROMPT, None, model.families)
            inputs = {**_window_inputs(order.cursor, window), "context": window.context}
            chat = self.prompts.render(prompt, inputs, model_params=model.params)
        if order.prompt_id and prompt is None:
            prompt = self.prompts.find(order.prompt_id, None, model.families)
        chat = replace_fields(
            chat,
            fill_in=fill_in,
            answer="code",
            choices=max(1, order.choices),
            stream=order.stream,
            user=order.user,
            max_tokens=chat.max_tokens or order.max_tokens,
        )
        named = prompt if order.prompt_id else None
        answer = await self._answer(permit, model, chat, facts, prompt=named)
        return CodeAnswer(answer, order.cursor, order.cleaning, window, self.settings.excl_post_process)

    async def generate(self, permit: Permit, order: GenerationOrder, facts: dict[str, Any]) -> CodeAnswer:
        """A longer piece of code from an instruction."""
        model = self.models.find(order.wish)
        window = fit(
            order.cursor,
            model.input_limit - order.max_tokens,
            context_share=order.context_share,
            uses_context=order.uses_context,
        )
        prompt = None
        if order.prompt is not None and not order.prompt_id:
            chat = ChatRequest(messages=_own_messages(order.prompt), max_tokens=order.max_tokens, stop=order.stop)
        else:
            constraint = order.prompt_version if order.prompt_id else None
            prompt = self.prompts.find(order.prompt_id or GENERATION_PROMPT, constraint, model.families)
            inputs = {**order.template_inputs, **_window_inputs(order.cursor, window), "context": window.context}
            chat = self.prompts.render(prompt, inputs, model_params=model.params)
            chat = replace_fields(chat, stop=chat.stop or order.stop)
        chat = replace_fields(
            chat,
            fill_in=_fill_in(order.cursor, window, ""),
            answer="code",
            stream=order.stream,
            user=order.user,
            max_tokens=chat.max_tokens or order.max_tokens,
        )
        named = prompt if order.prompt_id else None
        answer = await self._answer(permit, model, chat, facts, prompt=named)
        return CodeAnswer(answer, order.cursor, order.cleaning, window, self.settings.excl_post_process)

    async def step(self, permit: Permit, order: StepOrder, facts: dict[str, Any]) -> Answer:
        """One step of a ReAct loop that the client runs."""
        model = self.models.find(order.wish)
        prompt = self.prompts.find(STEP_PROMPT, None, model.families)
        chat = self.prompts.render(prompt, step_inputs(order), model_params=model.params)
        chat = replace_fields(
            chat,
            user=order.user,
            timeout_s=chat.timeout_s or self.settings.chat_timeout_s,
        )
        return await self._answer(permit, model, chat, facts, prompt=prompt)

    async def answer_as_demo(self, permit: Permit, chat: ChatRequest, facts: dict[str, Any]) -> Answer:
        """The built-in demo, asked in a vendor's own dialect."""
        return await self._answer(permit, self.models.find(ModelWish(identifier="demo")), chat, facts)

    async def _answer(
        self,
        permit: Permit,
        model: Model,
        chat: ChatRequest,
        facts: dict[str, Any],
        *,
        prompt: Prompt | None = None,
    ) -> Answer:
        """Pick, send, and hold the first batch. `prompt` is named in the answer."""
        started = time.monotonic()
        labels = self._labels(permit, prompt, is_streamed=chat.stream)
        try:
            route = await self.router.pick(permit, model, chat.tries)
            flow = await self.router.stream(route, chat)
        except ProviderError as error:
            deployment = model.deployments[0]
            record_inference(
                self.metrics, facts, deployment.provider, deployment.model, labels,
                seconds=time.monotonic() - started, outcome="failed", usage=None, failure=error,
            )  # fmt: skip
            raise
        return Answer(
            flow=flow,
            labels=labels,
            chat=chat,
            metrics=self.metrics,
            facts=facts,
            started=started,
            headers=self._headers(flow, prompt),
            leaks_reasoning=model.leaks_reasoning,
        )

    def _labels(self, permit: Permit, prompt: Prompt | None, *, is_streamed: bool) -> Labels:
        name = permit.unit_primitives[0] if permit.unit_primitives else ""
        known = self.models.catalogue.unit_primitives.get(name)
        category = known.feature_category if known is not None else ""
        return Labels(unit_primitive=name, feature_category=category, prompt=prompt, is_streamed=is_streamed)

    def _headers(self, flow: Flow, prompt: Prompt | None) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = []
        if flow.deployment.provider == "demo":
            headers.append((b"x-torana-demo", b"true"))
        if self.detail_headers:
            headers.append((b"x-aigw-model", header_text(flow.deployment.name)))
            if prompt is not None:
                headers.append((b"x-aigw-prompt", header_text(f"{prompt.id}@{prompt.version}")))
        return headers

    async def relay(
        self,
        permit: Permit,
        provider: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        facts: dict[str, Any],
        *,
        model: str,
        stream: bool,
        method: str = "POST",
    ) -> Relay:
        """The pass-through: the same walk without rendering; the bytes go on as they came.

        Raises ProviderError where nothing answered, or our own key is refused.
        """
        started = time.monotonic()
        labels = self._labels(permit, None, is_streamed=stream)
        deployment = self.models.deployment_of(provider, model)
        try:
            answer = await self.sender.relay(deployment, path, body, headers, stream=stream, method=method)
        except ProviderError as error:
            record_inference(
                self.metrics, facts, provider, model, labels,
                seconds=time.monotonic() - started, outcome="failed", usage=None, failure=error,
            )  # fmt: skip
            raise
        return Relay(
            answer=answer,
            provider=provider,
            model=model,
            labels=labels,
            metrics=self.metrics,
            facts=facts,
            started=started,
        )


def _fill_in(cursor: Cursor, window: Window, format_name: str) -> FillIn:
    marked = mark_cursor(format_name, window.prefix, window.suffix, window.context) if format_name else ""
    return FillIn(
        prefix=window.prefix,
        suffix=window.suffix,
        language=cursor.language,
        file_name=cursor.file_name,
        context=window.context,
        marked_prompt=marked,
    )


def _window_inputs(cursor: Cursor, window: Window) -> dict[str, Any]:
    return {
        "prefix": window.prefix,
        "suffix": window.suffix,
        "file_name": cursor.file_name,
        "language": cursor.language,
    }


def _own_messages(prompt: str | tuple[Message, ...]) -> tuple[Message, ...]:
    """A client's own prompt: a text is one user turn."""
    return (Message("user", (Text(prompt),)),) if isinstance(prompt, str) else prompt


def header_text(text: str) -> bytes:
    """A text as a header value: what HTTP cannot carry becomes `?`."""
    return bytes(byte if 0x20 <= byte < 0x7F else 0x3F for byte in text.encode("ascii", "replace"))[:256]
