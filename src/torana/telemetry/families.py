"""The metrics by name, kind and labels (contract 15). A new one is a line here and a verb in `metrics.py`."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

REQUEST_SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SHORT_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SYNC_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
SCORES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PROMPT_BYTES = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0)
PROMPT_TOKENS = (64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family.

    labels      names, in the order in which values are handed over
    buckets     upper bounds of a histogram, without +Inf
    is_per_node the workers say the same thing about the node: the largest value stands, not the sum
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    is_per_node: bool = False

    @property
    def slots(self) -> int:
        """Numbers that one series takes: a histogram has its buckets, +Inf and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


_MODEL = ("model_engine", "model_name")
_INFERENCE = (
    *_MODEL, "error", "streaming", "feature_category", "error_type", "unit_primitive", "finish_reason",
    "client_name", "client_version",
)  # fmt: skip
_HTTP = ("handler", "method", "status")
_FEEDBACK = (*_MODEL, "lang")

HTTP_SECONDS = Family(
    "http_request_duration_seconds",
    "histogram",
    "Seconds until the answer, streaming excluded.",
    _HTTP,
    REQUEST_SECONDS,
)
HTTP_TOTAL = Family("http_requests_total", "counter", "Requests answered.", _HTTP)
IN_FLIGHT = Family("model_inferences_in_flight", "gauge", "Model calls under way.", _MODEL)
MAX_CONCURRENT = Family(
    "model_inferences_max_concurrent", "gauge", "Configured limit of model calls at once.", _MODEL, is_per_node=True
)
MAX_INPUT = Family("model_max_input_tokens", "gauge", "Configured input tokens per minute.", _MODEL, is_per_node=True)
MAX_OUTPUT = Family(
    "model_max_output_tokens", "gauge", "Configured output tokens per minute.", _MODEL, is_per_node=True
)
MAX_TOTAL = Family("model_max_total_tokens", "gauge", "Configured tokens per minute.", _MODEL, is_per_node=True)
INFERENCES = Family("model_inferences_total", "counter", "Model calls that ended.", _INFERENCE)
INFERENCE_SECONDS = Family(
    "inference_request_duration_seconds",
    "histogram",
    "Seconds from sending a model call to its end.",
    _INFERENCE,
    REQUEST_SECONDS,
)
_TOKENS = (*_MODEL, "feature_category", "unit_primitive")
INPUT_TOKENS = Family("inference_input_tokens_total", "counter", "Tokens sent to models.", _TOKENS)
OUTPUT_TOKENS = Family("inference_output_tokens_total", "counter", "Tokens that models wrote.", _TOKENS)
ALL_TOKENS = Family("inference_total_tokens_total", "counter", "Tokens sent and written.", _TOKENS)
LANGUAGES = Family(
    "code_suggestions_prompt_language_total",
    "counter",
    "Code suggestions by language of the file.",
    ("lang", "extension", "editor_lang"),
)
CLEANING_SECONDS = Family(
    "code_suggestions_post_processing_duration_seconds",
    "histogram",
    "Seconds spent cleaning a code suggestion.",
    (),
    SHORT_SECONDS,
)
SUGGESTION_REQUESTS = Family(
    "code_suggestions_inference_requests_total", "counter", "Model calls for code suggestions.", _MODEL
)
SUGGESTION_SECONDS = Family(
    "code_suggestions_inference_request_duration_seconds",
    "histogram",
    "Seconds of a model call for a code suggestion.",
    _MODEL,
    REQUEST_SECONDS,
)
SUGGESTION_BYTES = Family(
    "code_suggestions_inference_prompt_size_bytes",
    "histogram",
    "Bytes of a code suggestion's prompt.",
    _MODEL,
    PROMPT_BYTES,
)
ABUSE_SCORES = Family(
    "abuse_request_scores",
    "histogram",
    "How far measured requests stray from their purpose: 0 not at all, 1 altogether.",
    (),
    SCORES,
)
SUGGESTION_TOKENS = Family(
    "code_suggestions_inference_prompt_size_tokens",
    "histogram",
    "Tokens of a code suggestion's prompt.",
    _MODEL,
    PROMPT_TOKENS,
)
SHOWN = Family("code_suggestions_requests_total", "counter", "Suggestions asked for, as clients report.", _FEEDBACK)
ACCEPTED = Family("code_suggestions_accepts_total", "counter", "Suggestions accepted, as clients report.", _FEEDBACK)
FAILED = Family("code_suggestions_errors_total", "counter", "Suggestions failed, as clients report.", _FEEDBACK)
QUOTA_CHECKS = Family("usage_quota_check_total", "counter", "Usage quota decisions.", ("result", "realm"))
PORTAL_REQUESTS = Family(
    "usage_quota_customersdot_requests_total", "counter", "Requests to the portal.", ("outcome", "status")
)
PORTAL_SECONDS = Family(
    "usage_quota_customersdot_latency_seconds", "histogram", "Seconds the portal took.", ("realm",), SHORT_SECONDS
)
REFUSALS = Family(
    "torana_auth_refusals_total", "counter", "Requests refused with 401, 402, 403 or 429, by refusal code.", ("code",)
)
ISSUER_KEYS = Family("torana_issuer_keys", "gauge", "Usable keys of an issuer.", ("issuer",), is_per_node=True)
ISSUER_KEY_AGE = Family(
    "torana_issuer_key_age_seconds",
    "gauge",
    "Seconds since an issuer's keys were last fetched.",
    ("issuer",),
    is_per_node=True,
)
ISSUER_UP = Family(
    "torana_issuer_up", "gauge", "1 while an issuer's last answer was good.", ("issuer",), is_per_node=True
)
USAGE_RECORDS = Family("usage_records_total", "counter", "Usage records that are durable.")
USAGE_AT_RISK = Family(
    "usage_at_risk_total", "counter", "Usage records whose call ended while the disk took none; kept in memory."
)
USAGE_LOST = Family("usage_lost_total", "counter", "Usage records that found no place in memory either.")
USAGE_DAMAGED = Family("usage_damaged_total", "counter", "Torn or flipped stretches of the usage spool, skipped.")
USAGE_STUCK = Family("usage_stuck_records", "gauge", "Usage records in memory, waiting for the disk.")
USAGE_SPOOL_BYTES = Family("usage_spool_bytes", "gauge", "Usage records on the disk, delivered ones included.")
USAGE_SPOOL_FULL = Family("usage_spool_full", "gauge", "Workers that are not sure to find space for usage records.")
USAGE_SYNC_SECONDS = Family(
    "usage_sync_seconds", "histogram", "Seconds until a group of usage records was durable.", (), SYNC_SECONDS
)
_LIMIT = ("limit", "unit")
LIMIT_PASSED = Family("torana_limit_passed_total", "counter", "Calls that a limit let pass.", _LIMIT)
LIMIT_REFUSED = Family("torana_limit_refused_total", "counter", "Calls that a limit refused.", _LIMIT)
LIMIT_USED = Family(
    "torana_limit_used_total", "counter", "What calls used of a limit, in its unit, once they ended.", _LIMIT
)
LIMIT_HELD = Family("torana_limit_held", "gauge", "What is reserved for calls under way, in the limit's unit.", _LIMIT)
LIMITS_SHARED = Family("torana_limits_shared", "gauge", "Workers that reach the counts all servers share.")
LIMIT_QUESTIONS = Family(
    "torana_limit_questions_total",
    "counter",
    "Questions of calls to the shared counts, by how they ended.",
    ("outcome",),
)
LIMITED_ALONE = Family(
    "torana_limited_alone_total", "counter", "Calls that a server decided by its own share: no shared counts."
)
LIMIT_UNPRICED = Family(
    "torana_limit_unpriced_total", "counter", "Calls that passed a limit on money uncounted: no known price.", _LIMIT
)
LIMIT_COUNTS_LOST = Family(
    "torana_limit_counts_lost_total",
    "counter",
    "Counts of callers given up before their period was over: more of them than the server's table has room for.",
)
USAGE_DELIVERED = Family("usage_delivered_total", "counter", "Usage records that a sink has taken.", ("sink",))
USAGE_RETRIES = Family("usage_retries_total", "counter", "Failed attempts to hand usage records over.", ("sink",))
USAGE_PARKED = Family("usage_parked_total", "counter", "Usage records set aside for an operator.", ("sink",))
USAGE_WITHHELD = Family(
    "usage_withheld_total", "counter", "Usage records not sent to a sink in another region.", ("sink",)
)
USAGE_BEHIND = Family(
    "usage_oldest_undelivered_seconds",
    "gauge",
    "Age of the oldest record that a sink lacks.",
    ("sink",),
    is_per_node=True,
)
DEPLOYMENT_STATE = Family(
    "torana_deployment_state",
    "gauge",
    "What a worker makes of a deployment, the worst of all: 0 closed, 1 half open, 2 open, 3 out (key or account).",
    ("deployment",),
    is_per_node=True,
)
TRIES = Family(
    "torana_tries_total", "counter", "Sendings to a deployment, by how they ended.", ("deployment", "outcome")
)
FALLBACKS = Family(
    "torana_fallbacks_total", "counter", "Calls that went on to another deployment.", ("deployment", "to")
)
COOL_DOWNS = Family("torana_cooldowns_total", "counter", "Times a deployment asked to be left alone.", ("deployment",))
HEDGES = Family("torana_hedges_total", "counter", "Second sendings beside a slow first one.", ("deployment", "outcome"))
SHADOWS = Family(
    "torana_shadows_total", "counter", "Copies of calls whose answers nobody sees.", ("deployment", "outcome")
)
INTERNAL_EVENTS = Family("internal_events_total", "counter", "The product's own events, sent or dropped.", ("outcome",))
CONFIG_STALE = Family(
    "config_stale", "gauge", "1 while a refused reload left the old catalogue in place.", is_per_node=True
)
LINES_DROPPED = Family("log_lines_dropped_total", "counter", "Log lines that could not be written.")
LOOP_LAG = Family("event_loop_lag_seconds", "histogram", "How late the event loop runs what is due.", (), LAG_SECONDS)
SHED = Family(
    "torana_requests_shed_total",
    "counter",
    "Requests turned away unread: a full line, overtaken, waited too long, no room lately, no memory for their bodies.",
    ("reason",),
)
WAITING = Family("torana_requests_waiting", "gauge", "Requests that wait for a worker to have time.")
BODY_MEMORY = Family("torana_body_memory_bytes", "gauge", "Bodies over 64 KiB that have come and are not answered.")
THREADS = Family("ai_gateway_threads_count", "gauge", "Threads of all workers.")

_USAGE = (
    USAGE_RECORDS, USAGE_AT_RISK, USAGE_LOST, USAGE_DAMAGED, USAGE_STUCK, USAGE_SPOOL_BYTES, USAGE_SPOOL_FULL,
    USAGE_SYNC_SECONDS, USAGE_DELIVERED, USAGE_RETRIES, USAGE_PARKED, USAGE_WITHHELD, USAGE_BEHIND,
    INTERNAL_EVENTS,
)  # fmt: skip

FAMILIES: tuple[Family, ...] = (
    HTTP_SECONDS, HTTP_TOTAL, IN_FLIGHT, MAX_CONCURRENT, MAX_INPUT, MAX_OUTPUT, MAX_TOTAL, INFERENCES,
    INFERENCE_SECONDS, INPUT_TOKENS, OUTPUT_TOKENS, ALL_TOKENS, LANGUAGES, CLEANING_SECONDS, SUGGESTION_REQUESTS,
    SUGGESTION_SECONDS, SUGGESTION_BYTES, SUGGESTION_TOKENS, SHOWN, ACCEPTED, FAILED, QUOTA_CHECKS,
    PORTAL_REQUESTS, PORTAL_SECONDS, REFUSALS, LIMIT_PASSED, LIMIT_REFUSED, LIMIT_USED, LIMIT_HELD, LIMIT_UNPRICED,
    LIMITS_SHARED, LIMIT_QUESTIONS, LIMITED_ALONE, LIMIT_COUNTS_LOST,
    ISSUER_KEYS, ISSUER_KEY_AGE, ISSUER_UP, DEPLOYMENT_STATE, TRIES, FALLBACKS, COOL_DOWNS, HEDGES, SHADOWS,
    ABUSE_SCORES, CONFIG_STALE, LINES_DROPPED, LOOP_LAG, SHED, WAITING, BODY_MEMORY, THREADS, *_USAGE,
)  # fmt: skip
