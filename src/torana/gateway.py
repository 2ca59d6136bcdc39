"""THE WALK: one call through the rooms, a line per room. Rendering, choosing and leaving meet here."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from msgspec.structs import replace as replace_fields

from torana.agents.step import PROMPT_ID as STEP_PROMPT
from torana.agents.step import StepOrder, step_inputs
from torana.answers import Answer, CodeAnswer, Embedded, Relay
from torana.books import ModelCall, asked_tokens, site_of
from torana.caller import Caller, Permit
from torana.chat import ChatRequest, FillIn, Message, ModelWish, Text, Usage
from torana.code.fill_in import FORMATS, mark_cursor
from torana.code.fitting import Room, fit_order, fit_request
from torana.code.languages import extension_of
from torana.code.orders import CompletionOrder, Cursor, GenerationOrder
from torana.code.window import Window
from torana.counting import BYTES_PER_TOKEN
from torana.dialects.embedding_dialect import EmbeddingsRequest
from torana.errors import Invalid, ProviderError, ProviderRefused, ProviderRefusedKey, Refusal
from torana.limits.estimate import estimate, estimate_body, estimate_inputs, input_tokens
from torana.limits.hold import Spent
from torana.limits.limits import Limits
from torana.limits.reached import ratelimit_headers
from torana.limits.rules import Call
from torana.prompts.marks import mark_system, unmark
from torana.prompts.prompt import Prompt
from torana.prompts.registry import Prompts
from torana.providers.provider import Deployment
from torana.providers.send import Sender
from torana.routing.models import CHAT, Model, Models, in_location, refuse_unable
from torana.routing.router import Router
from torana.routing.stages import NEVER
from torana.routing.traffic import Passage
from torana.routing.tries import Candidate, Route
from torana.settings import CatalogueSettings
from torana.telemetry.metrics import InFlight, Metrics
from torana.usage.ledger import Ledger, NoOrigin, Record
from torana.vocabulary import CountingThread

logger = logging.getLogger("torana.gateway")

COMPLETION_PROMPT = "code_suggestions/completions"
GENERATION_PROMPT = "code_suggestions/generations"

SHADOW = NoOrigin(endpoint="shadow", feature="shadow")
NOBODY = Caller()
"""Who pays for the copies of calls: the operator."""


class Gateway:
    """What the gateway can do with an authorized call. Every way in asks for a Permit."""

    def __init__(
        self,
        prompts: Prompts,
        models: Models,
        router: Router,
        sender: Sender,
        limits: Limits,
        metrics: Metrics,
        settings: CatalogueSettings,
        *,
        detail_headers: bool,
        ledger: Ledger | None = None,
        counting: CountingThread | None = None,
    ) -> None:
        """
        ledger    None: nothing is recorded, for commands that ask a model on their own account
        counting  shared by the gateways of all catalogues; None: one of its own
        """
        self.settings = settings
        self.prompts = prompts
        self.models = models
        self.router = router
        self.sender = sender
        self.limits = limits
        self.metrics = metrics
        self.detail_headers = detail_headers
        self.ledger = ledger
        self.counting = counting or CountingThread()
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
        facts: dict[str, Any],
        *,
        stream: bool,
        user: str = "",
        may_cache: bool = True,
    ) -> Answer:
        """A named prompt, filled in and answered. Returns once the first batch is in.

        may_cache  the provider may keep the head of the prompt, which is the same for everybody
        """
        chat = self.prompts.render(prompt, inputs, model_params=model.params)
        if not may_cache:
            chat = unmark(chat)
        if model.fill_in and prompt.id == COMPLETION_PROMPT:
            cursor = Cursor(prefix=_text_of(inputs, "prefix"), suffix=_text_of(inputs, "suffix"))
            as_rendered = chat
            _, chat = await fit_request(
                cursor,
                self._room(model),
                chat.max_tokens or 0,
                lambda window: _mark(as_rendered, model, cursor, window),
            )
        chat = replace_fields(chat, stream=stream, user=user)
        return await self._answer(permit, model, chat, facts, prompt=prompt)

    async def complete(self, permit: Permit, order: CompletionOrder, facts: dict[str, Any]) -> CodeAnswer:
        """A few tokens at the cursor: marked for families that know fill-in-the-middle, else an instruction."""
        model = self.router.inside(permit.caller, self.models.find_completing(order.wish))
        prompt = None
        if order.prompt is None:
            prompt = self.prompts.find(order.prompt_id or COMPLETION_PROMPT, None, model.families)

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
            max_tokens=order.max_tokens if is_fast else chat.max_tokens or order.max_tokens,
            wants_scores=(
                is_fast
                and not order.stream
                and bool(self.settings.score_thresholds)
                and "drop_unsure" not in self.left_out
            ),
        )
        return await self._suggest(permit, model, chat, order, window, prompt, facts)

    async def generate(self, permit: Permit, order: GenerationOrder, facts: dict[str, Any]) -> CodeAnswer:
        """A longer piece of code from an instruction."""
        model = self.router.inside(permit.caller, self.models.find(order.wish))
        prompt = None
        if order.prompt is None or order.prompt_id:
            constraint = order.prompt_version if order.prompt_id else None
            prompt = self.prompts.find(order.prompt_id or GENERATION_PROMPT, constraint, model.families)

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
        facts: dict[str, Any],
    ) -> CodeAnswer:
        """What completions and generations have in common: counted, sent, and cleaned on the way back."""
        cursor = order.cursor
        self.metrics.suggestion_language(
            cursor.language, extension_of(cursor.file_name), cursor.editor_language.strip().lower()
        )
        model = _place(model, prompt)
        chat = replace_fields(chat, answer="code", stream=order.stream, user=order.user)
        if not order.may_cache_prompt:
            chat = unmark(chat)
        if not order.prompt_id:
            # The default way only borrows the registry's prompt: its name and its patience are not the endpoint's.
            prompt, chat = None, replace_fields(chat, timeout_s=None)
        answer = await self._answer(permit, model, chat, facts, prompt=prompt, is_suggestion=True)
        least = (
            self.settings.score_thresholds.get(answer.upstream_model.rpartition("/")[2]) if chat.wants_scores else None
        )
        return CodeAnswer(answer, cursor, order.cleaning, window, self.left_out, least)

    async def step(self, permit: Permit, order: StepOrder, facts: dict[str, Any]) -> Answer:
        """One step of a ReAct loop that the client runs."""
        model = self.router.inside(permit.caller, self.models.find(order.wish))
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

    async def embed_as_demo(self, permit: Permit, request: EmbeddingsRequest, facts: dict[str, Any]) -> Embedded:
        """The built-in demo's vectors, asked for in a vendor's own dialect."""
        return await self.embed(permit, self.models.find(ModelWish(identifier="demo")), request, facts)

    def _room(self, model: Model) -> Room:
        return Room(input_tokens=model.input_limit, vocabulary=model.vocabulary, counting=self.counting)

    async def _answer(
        self,
        permit: Permit,
        model: Model,
        chat: ChatRequest,
        facts: dict[str, Any],
        *,
        prompt: Prompt | None = None,
        is_suggestion: bool = False,
    ) -> Answer:
        """Pick, send, and hold the first batch. `prompt` is named in the answer."""
        started = time.monotonic()
        model = _place(model, prompt)
        call = self._call(permit, facts, prompt, is_streamed=chat.stream)
        call.suggested = chat if is_suggestion else None
        deployment = model.deployments[0]
        under_way: InFlight | None = None
        try:
            route = await self.router.pick(permit, model, chat)
            lost = self._weigh_losses(route, chat)
            deployment = route.deployments[0]
            limited = await self._hold(
                permit, call, model.name, deployment, lambda: estimate(chat, deployment.prices, model.output_limit)
            )
            call.tries = route.tries
            call.admit(self.ledger, permit, model.name, deployment, self.router.regions_of(permit))
            under_way = self.metrics.in_flight(deployment.provider, deployment.model)
            under_way.begin()
            admit_shadow = self._admit_shadow(permit, call, model) if route.shadows else None
            flow = await self.router.stream(route, chat, admit_shadow)
        except BaseException as error:
            # Cancellation included: the call is no longer under way. Otherwise its answer says when.
            if under_way is not None:
                under_way.end()
            seconds = time.monotonic() - started
            call.record_failure(deployment.provider, deployment.model, seconds, error, lambda: asked_tokens(chat))
            if isinstance(error, ProviderError):
                await call.settled()
            raise
        call.prices = flow.deployment.prices
        if flow.deployment is not deployment:
            lost = self.sender.losses(flow.deployment, chat)
        waited_s = facts["provider_s"] = round(time.monotonic() - started, 6)
        return Answer(
            flow=flow,
            call=call,
            chat=chat,
            started=started,
            headers=[
                *self._headers(flow.deployment, prompt, model),
                *self._timing(waited_s),
                *limited,
                *self._tell_losses(lost, facts),
            ],
            leaks_reasoning=model.leaks_reasoning,
            under_way=under_way,
        )

    def _admit_shadow(self, permit: Permit, call: ModelCall, model: Model) -> Callable[[Deployment], Record] | None:
        """Opens the usage record of a copy that goes to a deployment on trial: the operator's, no caller's."""
        ledger, regions = self.ledger, self.router.regions_of(permit)
        if ledger is None:
            return None
        return lambda deployment: ledger.open(
            SHADOW, NOBODY, site_of(deployment),
            unit_primitive=call.unit_primitive, model=model.name, stream=call.is_streamed, residency=regions,
        )  # fmt: skip

    def _weigh_losses(self, route: Route, chat: ChatRequest) -> tuple[str, ...]:
        """What of the client's words gets lost on the way to the first candidate.

        Those who cannot be told what has to be told are no candidates; with AIGW_DIALECT__LOSSES=refuse, that is
        everything. Raises Refusal 422 where nobody is left.
        """
        if chat.source is None:
            return ()
        able: list[Candidate] = []
        first: tuple[str, ...] = ()
        refusal: Refusal | None = None
        for candidate in route.candidates:
            try:
                lost = self.sender.losses(candidate.deployment, chat)
                if lost and self.models.settings.losses == "refuse":
                    names = ", ".join(lost)
                    raise Refusal(422, "dialect_loss", f"This model cannot be told: {names}", missing=names)
            except Refusal as unable:
                refusal = refusal or unable
            else:
                first = first if able else lost
                able.append(candidate)
        if refusal is not None and not able:
            raise refusal
        route.candidates = tuple(able)
        return first

    def _weigh_inputs(self, route: Route, request: EmbeddingsRequest) -> None:
        """Leaves those as candidates who can be asked for these vectors; raises Invalid where nobody is left."""
        able: list[Candidate] = []
        refusal: Invalid | None = None
        for candidate in route.candidates:
            try:
                self.sender.check_inputs(candidate.deployment, request)
            except Invalid as unable:
                refusal = refusal or unable
            else:
                able.append(candidate)
        if refusal is not None and not able:
            raise refusal
        route.candidates = tuple(able)

    def _tell_losses(self, lost: tuple[str, ...], facts: dict[str, Any]) -> list[tuple[bytes, bytes]]:
        if not lost or self.models.settings.losses == "drop":
            return []
        names = ", ".join(lost)
        facts["dropped"] = names
        return [(b"x-torana-dropped", header_text(names))]

    def _call(self, permit: Permit, facts: dict[str, Any], prompt: Prompt | None, *, is_streamed: bool) -> ModelCall:
        name = permit.unit_primitives[0] if permit.unit_primitives else ""
        known = self.models.catalogue.unit_primitives.get(name)
        category = known.feature_category if known is not None else ""
        if category:
            facts["meta.feature_category"] = category
        return ModelCall(
            metrics=self.metrics,
            facts=facts,
            unit_primitive=name,
            feature_category=category,
            prompt=prompt,
            is_streamed=is_streamed,
            limits=self.limits,
        )

    async def _hold(
        self, permit: Permit, call: ModelCall, model_name: str, deployment: Deployment, expected: Callable[[], Spent]
    ) -> list[tuple[bytes, bytes]]:
        """Reserve what the call may use; how it stands with its limits, as headers. Raises LimitReached (429)."""
        call.prices = deployment.prices
        if not self.limits.rules:
            return []
        asked = Call(
            permit.caller,
            permit.user,
            call.unit_primitive,
            feature=call.facts.get("feature", ""),
            model_name=model_name,
            model=deployment.model,
            provider=deployment.provider,
        )
        call.hold = await self.limits.hold(asked, expected)
        return [] if call.hold is None else ratelimit_headers(call.hold.standings, is_degraded=call.hold.is_degraded)

    def _headers(self, deployment: Deployment, prompt: Prompt | None, model: Model) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = []
        if deployment.provider == "demo":
            headers.append((b"x-torana-demo", b"true"))
        if self.detail_headers:
            headers.append((b"x-aigw-model", header_text(f"{deployment.provider}/{deployment.model}")))
            if prompt is not None:
                headers.append((b"x-aigw-prompt", header_text(f"{prompt.id}@{prompt.version}")))
            if model.ends_at != NEVER:
                if model.announced_at is not None:
                    headers.append((b"deprecation", b"@%d" % model.announced_at))  # RFC 9745
                # RFC 8594: from this moment on another model answers.
                headers.append(
                    (b"sunset", header_text(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(model.ends_at))))
                )
        return headers

    def _timing(self, provider_s: float) -> list[tuple[bytes, bytes]]:
        """How long the provider took to its first chunk; x-process-time beside it tells the rest."""
        return [(b"server-timing", b"provider;dur=%.1f" % (provider_s * 1000))] if self.detail_headers else []

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
        is_free: bool = False,
    ) -> Relay:
        """The pass-through: the same walk without rendering; the bytes go on as they came.

        is_free  something is looked up, no model answers: there is nothing to account for

        Raises ProviderError where nothing answered, or our own key is refused.
        """
        started = time.monotonic()
        call = self._call(permit, facts, None, is_streamed=stream)
        deployment = self.models.deployment_of(provider, model)
        self.router.keep_inside(permit, deployment)
        under_way: InFlight | None = None
        leave: Callable[[], None] | None = None
        passage: Passage | None = None
        try:
            limited = await self._hold(
                permit, call, "", deployment, lambda: estimate_body(path, body, deployment.prices, is_free=is_free)
            )
            if not is_free:
                call.admit(self.ledger, permit, model, deployment, self.router.regions_of(permit))
            leave = await self.router.enter(permit, deployment)
            under_way = self.metrics.in_flight(provider, model)
            under_way.begin()
            call.is_relayed = True
            passage = self.router.pass_through(deployment)
            answer = await self.sender.relay(deployment, path, body, headers, stream=stream, method=method)
            passage.end(None)
        except BaseException as error:
            if passage is not None:
                passage.end(error)
            if under_way is not None:
                under_way.end()
            if leave is not None:
                leave()
            call.record_failure(
                provider, model, time.monotonic() - started, error,
                lambda: 0 if is_free else int(len(body) / BYTES_PER_TOKEN),
            )  # fmt: skip
            if isinstance(error, ProviderError):
                await call.settled()
            raise
        facts["provider_s"] = round(time.monotonic() - started, 6)
        return Relay(
            answer=answer, provider=provider, model=model, call=call, started=started, under_way=under_way,
            asked_bytes=0 if is_free else len(body), headers=limited, leave=leave,
        )  # fmt: skip

    async def ask(self, permit: Permit, model: Model, chat: ChatRequest, facts: dict[str, Any]) -> Answer:
        """A client's own prompt, sent as it is."""
        allowed = self.router.inside(permit.caller, model)
        if allowed is not model and allowed.output_limit < chat.output_limit:
            chat = replace_fields(chat, output_limit=allowed.output_limit)
        return await self._answer(permit, allowed, chat, facts)

    async def count_tokens(self, permit: Permit, model: Model, chat: ChatRequest) -> tuple[int, bool]:
        """How many tokens a prompt is, and whether its provider says so; else we estimate.

        Raises ProviderRefused where the provider has something against the prompt itself.
        """
        try:
            route = await self.router.pick(permit, self.router.inside(permit.caller, model))
            counted = await self.sender.count(route.deployments[0], chat)
        except ProviderError as error:
            if isinstance(error, ProviderRefused) and error.upstream_code in (400, 404, 413, 422):
                raise
            # Clients count often and by the way; an estimate serves them better than a failure.
            logger.log(
                logging.ERROR if isinstance(error, ProviderRefusedKey) else logging.WARNING,
                "counting failed, tokens are estimated",
                extra={"code": error.code, "where": error.where, "reason": error.reason},
            )
            counted = None
        return (input_tokens(chat), False) if counted is None else (counted, True)

    def speaks(self, model: Model, dialect: str) -> bool:
        """True where one of this model's deployments takes a client's bytes in `dialect` as they are."""
        return any(self.sender.speaks(each, dialect) for each in model.deployments)

    async def embed(self, permit: Permit, model: Model, request: EmbeddingsRequest, facts: dict[str, Any]) -> Embedded:
        """Vectors for texts; nothing streams. Raises ProviderError."""
        started = time.monotonic()
        model = self.router.inside(permit.caller, model)
        call = self._call(permit, facts, None, is_streamed=False)
        used = model.deployments[0]
        if model.is_demo and request.dimensions is None and model.dimensions:
            # The demo stands in for a model whose vectors have a length.
            request = replace_fields(request, dimensions=model.dimensions)
        try:
            route = await self.router.pick(permit, model)
            self._weigh_inputs(route, request)
            used = route.deployments[0]
            limited = await self._hold(
                permit, call, model.name, used, lambda: estimate_inputs(request.inputs, used.prices)
            )
            call.tries = route.tries
            call.admit(self.ledger, permit, model.name, used, self.router.regions_of(permit))
            with self.metrics.in_flight(used.provider, used.model):
                vectors, used, facts["attempts"] = await self.router.embed(route, request)
        except BaseException as error:
            call.record_failure(
                used.provider, used.model, time.monotonic() - started, error,
                lambda: estimate_inputs(request.inputs, None).input_tokens,
            )  # fmt: skip
            if isinstance(error, ProviderError):
                await call.settled()
            raise
        if call.entry is not None:
            call.entry.move(site_of(used))
        usage = vectors.usage or Usage(input_tokens=estimate_inputs(request.inputs, None).input_tokens, is_counted=True)
        call.record(used.provider, used.model, "completed", usage, time.monotonic() - started)
        await call.settled()
        headers = [*self._headers(used, None, model), *limited]
        standings = call.hold.standings if call.hold is not None else ()
        return Embedded(vectors.rows, used.provider, used.model, headers, vectors.usage, vectors.raw, standings)


def _place(model: Model, prompt: Prompt | None) -> Model:
    """The model, where the prompt file wants it to be asked."""
    return in_location(model, prompt.location) if prompt is not None and prompt.location else model


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


def _cut_alike(inputs: dict[str, Any], window: Window) -> dict[str, Any]:
    """What the client trimmed itself, and templates prefer, is no longer than what there is room for."""
    kept = {"trimmed_content_above_cursor": window.prefix, "trimmed_content_below_cursor": window.suffix}
    longer = {name for name in kept if window.is_cut and len(_text_of(inputs, name)) > len(kept[name])}
    return inputs | {name: kept[name] for name in longer}


@lru_cache(maxsize=1024)
def header_text(text: str) -> bytes:
    """A text as a header value: what HTTP cannot carry becomes `?`."""
    return bytes(byte if 0x20 <= byte < 0x7F else 0x3F for byte in text.encode("ascii", "replace"))[:256]
