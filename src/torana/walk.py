"""THE WALK: one authorized call to its provider, a line per room: choose, admit, leave.

What the model is asked was rendered before; the answer is read by `answers.py`.
"""

import time
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

from msgspec.structs import replace as replace_fields

from torana.answers import Answer, Embedded, Relay
from torana.books import ModelCall, asked_tokens, site_of
from torana.caller import Caller, Permit
from torana.chat import ChatRequest
from torana.counting import estimate_body
from torana.dialects.embedding_dialect import EmbeddingsRequest
from torana.errors import ProviderError, Refusal
from torana.facts import Facts
from torana.limits.estimate import estimate, estimate_inputs, estimate_relay
from torana.limits.limits import Limits
from torana.limits.rules import Call
from torana.limits.spent import Spent
from torana.prompts.prompt import Prompt
from torana.providers.provider import Deployment
from torana.providers.send import Sender
from torana.routing.models import Model, Models, in_location
from torana.routing.router import Router
from torana.routing.stages import NEVER
from torana.routing.traffic import Passage, no_room
from torana.telemetry.metrics import InFlight, Metrics
from torana.usage.event import MAX_TEXT
from torana.usage.ledger import Ledger, NoOrigin, Record, asked_for
from torana.usage.prices import Price
from torana.usage.told import complete, is_possible

_TOLD_CHARS = 256  # of what a header of ours says
SHADOW = NoOrigin(endpoint="shadow", feature="shadow")
NOBODY = Caller()
"""Who pays for the copies of calls: the operator."""


class Walk:
    """The rooms that every call goes through, whatever was asked. Every way in asks for a Permit."""

    def __init__(
        self,
        models: Models,
        router: Router,
        sender: Sender,
        limits: Limits,
        metrics: Metrics,
        *,
        detail_headers: bool,
        ledger: Ledger | None = None,
    ) -> None:
        """
        ledger  None: nothing is recorded, where nothing is sent
        """
        self.models = models
        self.router = router
        self.sender = sender
        self.limits = limits
        self.metrics = metrics
        self.detail_headers = detail_headers
        self.ledger = ledger
        self._names = models.catalogue.names_of_models()

    async def answer(
        self,
        permit: Permit,
        model: Model,
        chat: ChatRequest,
        facts: Facts,
        *,
        prompt: Prompt | None = None,
        rendered: Prompt | None = None,
        is_suggestion: bool = False,
    ) -> Answer:
        """Pick, send, and hold the first batch.

        prompt         named in the answer
        rendered       what the request was made of, where the answer does not name it; a header does
        is_suggestion  counted among the code suggestions
        """
        started = time.monotonic()
        model = place(model, prompt)
        call = self._call(permit, facts, prompt, is_streamed=chat.stream)
        call.suggested = chat if is_suggestion else None
        deployment = model.deployments[0]
        under_way: InFlight | None = None
        try:
            route = await self.router.pick(permit, model, chat)
            # Those who cannot be told what has to be told are no candidates.
            lost = () if chat.source is None else route.keep_able(partial(self._losses, chat=chat))
            deployment = route.deployments[0]
            limited = await self._hold(
                permit,
                call,
                model.name,
                deployment,
                lambda: estimate(chat, self._weighed(deployment), model.output_limit),
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
            _forget_drafts(chat)
            seconds = time.monotonic() - started
            call.record_failure(deployment.provider, deployment.model, seconds, error, lambda: asked_tokens(chat))
            if isinstance(error, ProviderError):
                await call.settled()
            raise
        if flow.deployment is not deployment:
            lost = self.sender.losses(flow.deployment, chat)
        _forget_drafts(chat)
        waited_s = facts["provider_s"] = round(time.monotonic() - started, 6)
        return Answer(
            flow=flow,
            call=call,
            chat=chat,
            started=started,
            headers=[
                *self.headers_of(flow.deployment, prompt or rendered, model),
                *self._timing(waited_s),
                *limited,
                *self._tell_losses(tuple(sorted({*lost, *flow.conceded})), facts),
            ],
            leaks_reasoning=model.leaks_reasoning,
            under_way=under_way,
        )

    def look(self, permit: Permit, model: Model, facts: Facts) -> None:
        """Whoever would be turned away wherever the call may go is so at once, before anything is done for it.

        Raises Refusal 503, as sending it would.
        """
        full = self.router.crowded(permit, model)
        if full is not None:
            raise self._turned_away(permit, full, facts)

    def _turned_away(self, permit: Permit, full: Deployment, facts: Facts) -> Refusal:
        """Never admitted: it takes nothing from limits, and has no usage record; the access line says the same."""
        self._tell_category(permit, facts)
        facts["provider"], facts["model"], facts["outcome"] = full.provider, full.model, "failed"
        return no_room()

    def _admit_shadow(self, permit: Permit, call: ModelCall, model: Model) -> Callable[[Deployment], Record] | None:
        """Opens the usage record of a copy that goes to a deployment on trial: the operator's, no caller's."""
        ledger, regions = self.ledger, self.router.regions_of(permit)
        if ledger is None:
            return None
        return lambda deployment: ledger.open(
            SHADOW, NOBODY, site_of(deployment),
            unit_primitive=call.unit_primitive, model=model.name, stream=call.is_streamed, residency=regions,
        )  # fmt: skip

    def _losses(self, deployment: Deployment, chat: ChatRequest) -> tuple[str, ...]:
        """What of the client's words gets lost on the way; raises Refusal 422 for what has to be told.

        With AIGW_DIALECT__LOSSES=refuse, that is everything.
        """
        lost = self.sender.losses(deployment, chat)
        if lost and self.models.settings.losses == "refuse":
            names = _names_of(lost)
            raise Refusal(422, "dialect_loss", f"This model cannot be told: {names}", missing=names)
        return lost

    def _tell_losses(self, lost: tuple[str, ...], facts: Facts) -> list[tuple[bytes, bytes]]:
        if not lost or self.models.settings.losses == "drop":
            return []
        names = _names_of(lost)
        facts["dropped"] = names
        return [(b"x-torana-dropped", header_text(names))]

    def _call(self, permit: Permit, facts: Facts, prompt: Prompt | None, *, is_streamed: bool) -> ModelCall:
        name, category = self._tell_category(permit, facts)
        return ModelCall(
            metrics=self.metrics,
            facts=facts,
            unit_primitive=name,
            feature_category=category,
            prompt=prompt,
            is_streamed=is_streamed,
            limits=self.limits,
        )

    def _tell_category(self, permit: Permit, facts: Facts) -> tuple[str, str]:
        """The unit primitive that the call is made under, and its category."""
        name = permit.unit_primitives[0] if permit.unit_primitives else ""
        known = self.models.catalogue.unit_primitives.get(name)
        category = known.feature_category if known is not None else ""
        if category:
            facts["meta.feature_category"] = category
        return name, category

    async def _hold(
        self, permit: Permit, call: ModelCall, model_name: str, deployment: Deployment, expected: Callable[[], Spent]
    ) -> list[tuple[bytes, bytes]]:
        """Reserve what the call may use; how it stands with its limits, as headers. Raises LimitReached (429)."""
        call.prices = deployment.prices
        if not self.limits.rules:
            return []
        origin, prompt_id = call.facts.origin, call.prompt.id if call.prompt is not None else ""
        asked = Call(
            permit.caller,
            permit.user,
            call.unit_primitive,
            feature=asked_for(origin.feature, prompt_id, origin.endpoint),
            model_name=model_name,
            model=deployment.model,
            provider=deployment.provider,
        )
        call.hold = await self.limits.hold(asked, expected, origin.body_bytes)
        return [] if call.hold is None else call.hold.headers()

    def _weighed(self, deployment: Deployment) -> Price | None:
        """The prices, where a limit asks for them: working out what a call may cost takes its time."""
        return deployment.prices if self.limits.count_money else None

    def headers_of(self, deployment: Deployment, prompt: Prompt | None, model: Model) -> list[tuple[bytes, bytes]]:
        """Who answered, as every answer of a model tells it."""
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
        facts: Facts,
        *,
        model: str,
        stream: bool,
        method: str = "POST",
        allowed_tokens: int = 0,
        is_free: bool = False,
    ) -> Relay:
        """The pass-through: the same walk without rendering; the bytes go on as they came.

        allowed_tokens  how long the answer may be; 0: the request does not say
        is_free         something is looked up, no model answers: there is nothing to account for

        Raises ProviderError where nothing answered, or our own key is refused.
        """
        # The body says it in full. Here it is for books, figures and what is remembered; a body may be one long name.
        model = model[:MAX_TEXT]
        started = time.monotonic()
        call = self._call(permit, facts, None, is_streamed=stream)
        asked = 0 if is_free else estimate_body(body)
        deployment = self.models.deployment_of(provider, model)
        self.router.keep_inside(permit, deployment)
        under_way: InFlight | None = None
        leave: Callable[[], None] | None = None
        passage: Passage | None = None
        try:
            limited = await self._hold(
                permit, call, "", deployment,
                lambda: estimate_relay(path, asked, allowed_tokens, self._weighed(deployment), is_free=is_free),
            )  # fmt: skip
            if not is_free:
                name = self._names.get((provider, model), model)
                call.admit(self.ledger, permit, name, deployment, self.router.regions_of(permit))
            leave = await self.router.enter(permit, deployment)
            under_way = self.metrics.in_flight(provider, model)
            under_way.begin()
            passage = self.router.pass_through(deployment)
            call.is_relayed = True
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
                lambda: asked,
            )  # fmt: skip
            if isinstance(error, ProviderError):
                await call.settled()
                # Its connection keeps it, and the frames that it came through hold that: a ring for the collector.
                raise error.with_traceback(None) from None
            raise
        facts["provider_s"] = round(time.monotonic() - started, 6)
        return Relay(
            answer=answer, provider=provider, model=model, call=call, started=started, under_way=under_way,
            asked_tokens=asked, headers=limited, leave=leave,
        )  # fmt: skip

    async def embed(self, permit: Permit, model: Model, request: EmbeddingsRequest, facts: Facts) -> Embedded:
        """Vectors for texts; nothing streams. Raises ProviderError."""
        started = time.monotonic()
        model = self.router.inside(permit.caller, model)
        self.look(permit, model, facts)
        call = self._call(permit, facts, None, is_streamed=False)
        used = model.deployments[0]
        if model.is_demo and request.dimensions is None and model.dimensions:
            # The demo stands in for a model whose vectors have a length.
            request = replace_fields(request, dimensions=model.dimensions)
        try:
            route = await self.router.pick(permit, model)
            route.keep_able(partial(self.sender.check_inputs, request=request))
            used = route.deployments[0]
            limited = await self._hold(
                permit, call, model.name, used, lambda: estimate_inputs(request.inputs, self._weighed(used))
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
        waited_s = facts["provider_s"] = round(time.monotonic() - started, 6)
        call.move(used)
        usage = vectors.usage
        if usage is None or not is_possible(usage):
            usage = complete(usage, estimate_inputs(request.inputs, None).input_tokens, 0)
        call.record(used.provider, used.model, "completed", usage, time.monotonic() - started)
        await call.settled()
        headers = [*self.headers_of(used, None, model), *self._timing(waited_s), *limited]
        standings = call.hold.standings if call.hold is not None else ()
        return Embedded(vectors.rows, used.provider, used.model, headers, usage, vectors.raw, standings)


def _forget_drafts(chat: ChatRequest) -> None:
    """They would be a ring for the collector."""
    if chat.source is not None:
        chat.source.drafts.clear()


def place(model: Model, prompt: Prompt | None) -> Model:
    """The model, where the prompt file wants it to be asked."""
    return in_location(model, prompt.location) if prompt is not None and prompt.location else model


def _names_of(lost: tuple[str, ...]) -> str:
    """As they are told, and logged: their number and lengths are the client's choice."""
    return ", ".join(lost)[:_TOLD_CHARS]


@lru_cache(maxsize=1024)
def header_text(text: str) -> bytes:
    """A short text as a header value: what HTTP cannot carry becomes `?`."""
    return bytes(byte if 0x20 <= byte < 0x7F else 0x3F for byte in text.encode("ascii", "replace"))[:_TOLD_CHARS]
