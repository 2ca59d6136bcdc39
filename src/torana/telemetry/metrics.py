"""What the gateway counts, as verbs. The hot ones find their series in a dict and add to an array.

No label ever holds an id of a user or an instance. A value that clients choose and that the catalogue
does not know becomes `other`, and so does whatever goes beyond a family's number of series.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torana.chat import Usage
from torana.errors import ProviderError
from torana.telemetry import families
from torana.telemetry.engine_limits import read_engine_limits
from torana.telemetry.error_types import error_type_of
from torana.telemetry.exposition import CONTENT_TYPE, write_exposition
from torana.telemetry.families import Family
from torana.telemetry.limit_figures import LimitFigures
from torana.telemetry.shards import OTHER, Labels, Shards
from torana.telemetry.usage_figures import SinkFigures, UsageFigures

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_FINISHES = frozenset(("stop", "length", "tool_calls", "content_filter", "stop_sequence", "other"))
_REALMS = frozenset(("saas", "self-managed"))
_REMEMBERED = 2_000
"""Entries of a cache whose keys clients have a say in; a full one is emptied."""
_MOST_TOLD = 1_000_000
"""Suggestions that one report of a client's may be about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The label values of the catalogue; every other one that clients choose is shown as `other`."""

    engines: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    unit_primitives: frozenset[str] = frozenset()
    feature_categories: frozenset[str] = frozenset()
    languages: frozenset[str] = frozenset()
    extensions: frozenset[str] = frozenset()
    editor_languages: frozenset[str] = frozenset()
    clients: frozenset[str] = frozenset()
    client_versions: frozenset[str] = frozenset()


_InferenceKind = tuple[str, str, str, bool, str, str, str, str, str]
"""What model calls have in common that are counted together, in the order of `Metrics.inference`: as they come, only
the client's name and version bound to what is known."""


class InFlight:
    """One model call under way: `begin` and `end`, or `with`."""

    __slots__ = ("_place", "_values")

    def __init__(self, values: "memoryview[float]", place: int) -> None:
        self._values = values
        self._place = place

    def begin(self) -> None:
        self._values[self._place] += 1

    def end(self, *_: object) -> None:
        self._values[self._place] -= 1

    __enter__ = begin
    __exit__ = end


class Metrics:
    """All figures of this worker; `expose` shows those of all workers.

    model_limits  engine → model → limits, as AIGW_MODEL_ENGINE_LIMITS has it
    directory     shared by the workers of one server; None: there is one worker
    """

    def __init__(
        self, known: Known, model_limits: Mapping[str, Any] | None = None, directory: Path | None = None
    ) -> None:
        self._known = known
        self._shards = Shards(directory)
        self._values = self._shards.values
        self._requests: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._inferences: dict[_InferenceKind, tuple[int, int, int, int, int]] = {}
        self._in_flight: dict[tuple[str, str], int] = {}
        self._tries: dict[tuple[str, str], int] = {}
        self._suggestions: dict[tuple[str, str], tuple[int, ...]] = {}
        self._languages: dict[tuple[str, str, str], int] = {}
        for family in families.FAMILIES:
            if not family.labels:
                self._shards.place(family, ())
        self._stale = self._shards.place(families.CONFIG_STALE, ())
        self._lines_dropped = self._shards.place(families.LINES_DROPPED, ())
        self._waiting = self._shards.place(families.WAITING, ())
        self._body_memory = self._shards.place(families.BODY_MEMORY, ())
        self._threads = self._shards.place(families.THREADS, ())
        self.usage = UsageFigures(self._shards)
        self._show_limits(model_limits or {})

    def know(self, known: Known) -> None:
        """A reload has brought another catalogue."""
        self._known = known
        for cache in (
            self._requests, self._inferences, self._in_flight, self._tries, self._suggestions, self._languages,
        ):  # fmt: skip
            cache.clear()

    def request(self, handler: str, method: str, status: int, seconds: float) -> None:
        """One request answered.

        handler  the route without prefix; the caller has one fixed name for paths without a route
        seconds  until the answer was there; of a stream, until its start
        """
        found = self._requests.get((handler, method, status))
        if found is None:
            found = self._find_request(handler, method, status)
        values = self._values
        values[found[0]] += 1
        start = found[1]
        values[start + bisect_left(families.REQUEST_SECONDS, seconds)] += 1
        values[start + _REQUEST_SUM] += seconds

    def inference(
        self,
        *,
        engine: str,
        model: str,
        feature_category: str,
        unit_primitive: str,
        is_streamed: bool,
        error: ProviderError | None,
        finish_reason: str,
        seconds: float,
        usage: Usage | None,
        client_name: str = "",
        client_version: str = "",
    ) -> None:
        """One model call ended. `finish_reason` is empty where the model told none."""
        error_type = "none" if error is None else error_type_of(error)
        # Bounded at once: made-up names must not fill what is remembered.
        client_name = _bound(client_name, self._known.clients)
        client_version = _bound(client_version, self._known.client_versions)
        kind = (
            engine, model, error_type, is_streamed, feature_category, unit_primitive, finish_reason,
            client_name, client_version,
        )  # fmt: skip
        found = self._inferences.get(kind)
        if found is None:
            found = self._find_inference(kind)
        values = self._values
        values[found[0]] += 1
        start = found[1]
        values[start + bisect_left(families.REQUEST_SECONDS, seconds)] += 1
        values[start + _REQUEST_SUM] += seconds
        if usage is not None:
            values[found[2]] += usage.input_tokens
            values[found[3]] += usage.output_tokens
            values[found[4]] += usage.input_tokens + usage.output_tokens

    def in_flight(self, engine: str, model: str) -> InFlight:
        """`with metrics.in_flight(…):` around a model call."""
        place = self._in_flight.get((engine, model))
        if place is None:
            place = self._shards.place(families.IN_FLIGHT, self._bound_model(engine, model))
            _remember(self._in_flight, (engine, model), place)
        return InFlight(self._values, place)

    def suggestion(self, engine: str, model: str, seconds: float, prompt_bytes: int, prompt_tokens: int) -> None:
        """One model call for a code suggestion ended."""
        places = self._suggestions.get((engine, model))
        if places is None:
            labels = self._bound_model(engine, model)
            places = tuple(self._shards.place(family, labels) for family in _SUGGESTION)
            _remember(self._suggestions, (engine, model), places)
        values = self._values
        values[places[0]] += 1
        _, in_seconds, in_bytes, in_tokens = places
        values[in_seconds + bisect_left(_SECONDS, seconds)] += 1
        values[in_seconds + len(_SECONDS) + 1] += seconds
        values[in_bytes + bisect_left(_BYTES, prompt_bytes)] += 1
        values[in_bytes + len(_BYTES) + 1] += prompt_bytes
        values[in_tokens + bisect_left(_TOKENS, prompt_tokens)] += 1
        values[in_tokens + len(_TOKENS) + 1] += prompt_tokens

    def suggestion_language(self, language: str, extension: str, editor_language: str) -> None:
        key = (language, extension, editor_language)
        place = self._languages.get(key)
        if place is None:
            known = self._known
            labels = (
                _bound(language, known.languages),
                _bound(extension, known.extensions),
                _bound(editor_language, known.editor_languages),
            )
            place = self._shards.place(families.LANGUAGES, labels)
            _remember(self._languages, key, place)
        self._values[place] += 1

    def abuse_score(self, score: float) -> None:
        self._observe(families.ABUSE_SCORES, (), score)

    def suggestion_cleaned(self, seconds: float) -> None:
        self._observe(families.CLEANING_SECONDS, (), seconds)

    def suggestion_feedback(
        self, engine: str, model: str, language: str, *, requests: int, accepts: int, errors: int
    ) -> None:
        """What a client tells about suggestions it was given earlier (contract 6.1, `telemetry`)."""
        labels = (*self._bound_model(engine, model), _bound(language, self._known.languages))
        for family, amount in ((families.SHOWN, requests), (families.ACCEPTED, accepts), (families.FAILED, errors)):
            # A client may claim anything, and a counter must neither run backwards nor come to its end.
            self._count(family, labels, min(max(0, amount), _MOST_TOLD))

    def quota_check(self, result: str, realm: str) -> None:
        """`result` and `outcome` are the quota room's own words, a handful each."""
        self._count(families.QUOTA_CHECKS, (result, _bound(realm, _REALMS)))

    def portal_request(self, outcome: str, status: int, realm: str, seconds: float) -> None:
        """One request to the customer portal; status 0 where no answer came."""
        self._count(families.PORTAL_REQUESTS, (outcome, str(status) if status else "none"))
        self._observe(families.PORTAL_SECONDS, (_bound(realm, _REALMS),), seconds)

    def refusal(self, code: str) -> None:
        """One request refused for who sent it or how much; `code` is a key of the refusal catalogue."""
        self._count(families.REFUSALS, (code,))

    def limit(self, name: str, unit: str, scale: float) -> LimitFigures:
        """The figures of one limit of the catalogue; `scale` turns its amounts into what is shown."""
        place, labels = self._shards.place, (name, unit)
        return LimitFigures(
            self._values,
            passed=place(families.LIMIT_PASSED, labels),
            refused=place(families.LIMIT_REFUSED, labels),
            used=place(families.LIMIT_USED, labels),
            held=place(families.LIMIT_HELD, labels),
            scale=scale,
        )

    def unpriced(self, limit: str, unit: str) -> None:
        """A call passed a limit on money that could not count it."""
        self._count(families.LIMIT_UNPRICED, (limit, unit))

    def sink(self, name: str) -> SinkFigures:
        """The figures of one sink; there are as many as sinks.yml names."""
        return SinkFigures(self._shards, name)

    def internal_events(self, *, sent: int = 0, dropped: int = 0) -> None:
        """Events of the product's own."""
        for outcome, count in (("sent", sent), ("dropped", dropped)):
            self._count(families.INTERNAL_EVENTS, (outcome,), count)

    def limits_shared(self, is_so: bool) -> None:
        """This worker reaches the shared counts, or no longer."""
        self._values[self._shards.place(families.LIMITS_SHARED, ())] = float(is_so)

    def limit_question(self, outcome: str) -> None:
        """A call has asked the shared counts; `answered`, or one of the line's own few reasons."""
        self._count(families.LIMIT_QUESTIONS, (outcome,))

    def limited_alone(self) -> None:
        self._count(families.LIMITED_ALONE, ())

    def limit_count_lost(self) -> None:
        self._count(families.LIMIT_COUNTS_LOST, ())

    def issuer(self, base_url: str, *, keys: int, is_up: bool, age_s: float | None) -> None:
        """State of an issuer's keys; there are as many issuers as the settings name."""
        place, labels = self._shards.place, (base_url,)
        self._values[place(families.ISSUER_KEYS, labels)] = keys
        self._values[place(families.ISSUER_UP, labels)] = float(is_up)
        if age_s is not None:
            self._values[place(families.ISSUER_KEY_AGE, labels)] = round(age_s, 1)

    # Names of deployments come from the catalogue; all servers of clients' own share one.

    def deployment_state(self, deployment: str, state: int) -> None:
        """0: closed, 1: half open, 2: open, 3: out, for our key is refused or our account spent."""
        self._values[self._shards.place(families.DEPLOYMENT_STATE, (deployment,))] = state

    def tried(self, deployment: str, outcome: str) -> None:
        """One sending ended; `outcome` is routing's own word or the failure's code."""
        key = (deployment, outcome)
        place = self._tries.get(key)
        if place is None:
            place = self._shards.place(families.TRIES, (deployment, outcome))
            _remember(self._tries, key, place)
        self._values[place] += 1

    def fell_back(self, deployment: str, to: str) -> None:
        self._count(families.FALLBACKS, (deployment, to))

    def cooled_down(self, deployment: str) -> None:
        self._count(families.COOL_DOWNS, (deployment,))

    def hedged(self, deployment: str, outcome: str) -> None:
        """A second sending was made because the first one dawdled at `deployment`; `outcome`: won or lost."""
        self._count(families.HEDGES, (deployment, outcome))

    def shadowed(self, deployment: str, outcome: str) -> None:
        """A copy of a call went to `deployment`; `outcome`: answered, failed or dropped."""
        self._count(families.SHADOWS, (deployment, outcome))

    def config_stale(self, is_stale: bool) -> None:
        self._values[self._stale] = float(is_stale)

    def lines_dropped(self, lines: int) -> None:
        self._values[self._lines_dropped] += lines

    def shed(self, reason: str) -> None:
        """One request turned away; `reason` is one of a few words of ours."""
        self._count(families.SHED, (reason,))

    def waiting(self, requests: int) -> None:
        self._values[self._waiting] = requests

    def body_memory(self, size: int) -> None:
        self._values[self._body_memory] = size

    def loop_lag(self, seconds: float) -> None:
        self._observe(families.LOOP_LAG, (), seconds)

    def threads(self, count: int) -> None:
        self._values[self._threads] = count

    def expose(self) -> tuple[bytes, str]:
        """(body, content type) of a scrape; all workers summed, whichever of them is asked."""
        return write_exposition(self._shards.sum()), CONTENT_TYPE

    def close(self) -> None:
        """Leave the counters to the next worker. Only at the end of the process."""
        self._shards.close()

    def _count(self, family: Family, labels: Labels, amount: float = 1) -> None:
        self._values[self._shards.place(family, labels)] += amount

    def _observe(self, family: Family, labels: Labels, value: float) -> None:
        start = self._shards.place(family, labels)
        self._values[start + bisect_left(family.buckets, value)] += 1
        self._values[start + len(family.buckets) + 1] += value

    def _find_request(self, handler: str, method: str, status: int) -> tuple[int, int]:
        labels = (handler, _bound(method, _METHODS), f"{status // 100}xx")
        places = self._shards.place(families.HTTP_TOTAL, labels), self._shards.place(families.HTTP_SECONDS, labels)
        _remember(self._requests, (handler, method, status), places)
        return places

    def _find_inference(self, kind: _InferenceKind) -> tuple[int, int, int, int, int]:
        known, place = self._known, self._shards.place
        engine, model, error_type, is_streamed, category, primitive, finish_reason, *client = kind
        engine_model = self._bound_model(engine, model)
        category, primitive = _bound(category, known.feature_categories), _bound(primitive, known.unit_primitives)
        labels = (
            *engine_model, "no" if error_type == "none" else "yes", "yes" if is_streamed else "no", category,
            error_type, primitive, _bound(finish_reason, _FINISHES), *client,
        )  # fmt: skip
        tokens = (*engine_model, category, primitive)
        places = (
            place(families.INFERENCES, labels),
            place(families.INFERENCE_SECONDS, labels),
            place(families.INPUT_TOKENS, tokens),
            place(families.OUTPUT_TOKENS, tokens),
            place(families.ALL_TOKENS, tokens),
        )
        _remember(self._inferences, kind, places)
        return places

    def _bound_model(self, engine: str, model: str) -> Labels:
        return _bound(engine, self._known.engines), _bound(model, self._known.models)

    def _show_limits(self, limits: Mapping[str, Any]) -> None:
        for family, labels, number in read_engine_limits(limits):
            self._values[self._shards.place(family, labels)] = number


_SUGGESTION = (
    families.SUGGESTION_REQUESTS, families.SUGGESTION_SECONDS, families.SUGGESTION_BYTES, families.SUGGESTION_TOKENS,
)  # fmt: skip
_, _SECONDS, _BYTES, _TOKENS = (family.buckets for family in _SUGGESTION)
_REQUEST_SUM = len(families.REQUEST_SECONDS) + 1


def _bound(value: str, known: frozenset[str]) -> str:
    """`none` for an empty value: Prometheus takes an empty label for an absent one."""
    if not value:
        return "none"
    return value if value in known else OTHER


def _remember(cache: dict[Any, Any], key: object, value: object) -> None:
    if len(cache) >= _REMEMBERED:
        cache.clear()
    cache[key] = value
