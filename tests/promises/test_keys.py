"""Issuers' keys through outages, rotation, poison and wrong clocks: drills JW1–JW8 and JW10–JW11, short forms."""

import asyncio
import base64
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import formatdate
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jwt.algorithms import RSAAlgorithm
from tests.conftest import StartGateway
from tests.support.clock import HandClock
from tests.support.gateway import RunningGateway
from tests.support.http_client import Answer
from tests.support.http_server import Answering, Request
from tests.support.issuer import AUDIENCE, DISCOVERY, FakeIssuer
from tests.support.keys import rsa_key
from tests.support.waiting import eventually

CURSOR = {"file_name": "a.py", "content_above_cursor": "x", "content_below_cursor": ""}
BODY = {"prompt_version": 1, "current_file": CURSOR}
KEYS = "/oauth/discovery/keys"
NO_LOCAL_KEYS = {"AIGW_SELF_SIGNED_JWT__SIGNING_KEY": "", "AIGW_SELF_SIGNED_JWT__VALIDATION_KEY": ""}
WEAK_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)

JSON = [("Content-Type", "application/json")]


class Issuer(FakeIssuer):
    """A fake issuer that can be told to answer anything at all, and whose clock shows in its answers."""

    def __init__(self, first_key: int = 100) -> None:
        super().__init__(first_key=first_key)
        self.poison: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}
        """End of the path → answer instead of the true one."""

    async def _handle(self, request: Request, answering: Answering) -> None:
        for path, (status, headers, body) in self.poison.items():
            if request.path.endswith(path):
                self.requests.append(request)
                await answering.whole(status, body, headers)
                return
        await super()._handle(request, answering)

    def asked(self, end: str = KEYS) -> int:
        return sum(request.path == end for request in self.requests)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as issuer:
        yield issuer


@pytest.fixture
async def second() -> AsyncIterator[Issuer]:
    """The portal, an issuer with a key of its own."""
    async with Issuer(first_key=200) as issuer:
        yield issuer


@pytest.fixture
async def gateway(start_gateway: StartGateway, issuer: Issuer, second: Issuer, clock: HandClock) -> RunningGateway:
    gateway = await start_gateway(env={"AIGW_CUSTOMER_PORTAL_URL": second.url}, clock=clock)
    await eventually(lambda: is_ready(gateway, issuers=2))
    return gateway


async def ask(gateway: RunningGateway, token: str, headers: dict[str, str | None] | None = None) -> Answer:
    return await gateway.post("/v2/code/completions", json=BODY, token=token, headers=headers)


async def is_ready(gateway: RunningGateway, issuers: int = 0) -> bool:
    report = (await gateway.monitoring("/readyz")).json()
    good = [name for name, row in report["checks"].items() if name.startswith("issuer") and row["ok"]]
    return bool(report["ready"]) and len(good) >= issuers


def good(issuer: FakeIssuer, **changes: Any) -> str:
    return issuer.token(unit_primitives=["complete_code"], **changes)


def forged(issuer: FakeIssuer, kid: str) -> str:
    """Nobody's signature under a key id that nobody knows; cheap to make."""
    header = {"alg": "RS256", "typ": "JWT", "kid": kid}
    part = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return ".".join([part, *good(issuer).split(".")[1:]])


# Nobody answers at the start (JW1).


@pytest.mark.parametrize("how", ["down", "error", "html", "slow"])
async def test_without_any_key_calls_get_503_and_the_gateway_is_ready_soon_after_an_issuer_recovers(
    start_gateway: StartGateway, issuer: Issuer, how: Any
) -> None:
    if how == "down":
        issuer.go_down()
    else:
        issuer.failure = how
    gateway = await start_gateway(env=NO_LOCAL_KEYS)

    answer = await ask(gateway, good(issuer))
    assert (answer.status, answer.refusal.code, answer.refusal.retryable) == (503, "keys_unavailable", True)
    assert answer.json()["error"]
    assert (await gateway.get("/monitoring/healthz")).status == 200
    assert (await gateway.get("/monitoring/ready")).status == 503
    report = (await gateway.monitoring("/readyz")).json()["checks"]
    assert not report["keys"]["ok"]
    row = report[f"issuer {issuer.url}"]
    assert not row["ok"]
    assert "answers" not in row["detail"]

    issuer.failure = ""  # what hung goes on hanging: only a new question gets an answer
    if how == "down":
        await issuer.come_back()
    await eventually(lambda: is_ready(gateway), within_s=5)

    assert (await ask(gateway, good(issuer))).status == 200


async def test_local_keys_alone_are_enough_to_be_ready(start_gateway: StartGateway, issuer: Issuer) -> None:
    issuer.go_down()
    gateway = await start_gateway()

    assert await is_ready(gateway)
    assert (await ask(gateway, gateway.user_token(unit_primitives=["complete_code"]))).status == 200
    assert (await ask(gateway, good(issuer))).refusal.code == "token_signature"


# Down later (JW2).


@pytest.mark.parametrize("failure", ["down", "html", "error", "garbled"])
async def test_keys_serve_through_an_outage_until_they_are_stale(
    gateway: RunningGateway, issuer: Issuer, second: Issuer, clock: HandClock, failure: Any
) -> None:
    issuer.clock = second.clock = clock
    if failure == "down":
        issuer.go_down()
    else:
        issuer.failure = failure
    clock.advance(3600 * 3)

    assert (await ask(gateway, forged(issuer, "unknown"))).status == 401  # makes it ask, in vain
    assert (await ask(gateway, good(issuer))).status == 200
    assert not (await gateway.monitoring("/readyz")).json()["checks"][f"issuer {issuer.url}"]["ok"]
    assert (await gateway.log.find(message="an issuer's keys could not be fetched", issuer=issuer.url))["reason"]

    clock.advance(86400)
    assert (await ask(gateway, good(second))).status in (200, 401)  # the other one may be asked anew
    assert (await ask(gateway, good(issuer))).refusal.code == "token_signature"
    await gateway.log.find(message="an issuer's keys are too old and no longer used")


async def test_keys_are_fetched_again_before_they_are_old(start_gateway: StartGateway, issuer: Issuer) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__KEY_TTL_S": "1"})
    await eventually(lambda: is_ready(gateway))
    old = good(issuer)
    assert (await ask(gateway, old)).status == 200
    issuer.rotate()

    async def is_refused() -> bool:
        return (await ask(gateway, old)).status == 401

    await eventually(is_refused)  # nobody asked for an unknown key: the refresh removed the old one


async def test_keys_that_are_not_due_for_a_refresh_are_never_stale(start_gateway: StartGateway, issuer: Issuer) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__KEY_STALE_S": "0"})
    await eventually(lambda: is_ready(gateway))

    assert (await ask(gateway, good(issuer))).status == 200


# A slow issuer (JW3).


async def test_a_slow_issuer_holds_up_nobody_whose_key_is_known_and_others_not_for_good(
    gateway: RunningGateway, issuer: Issuer, second: Issuer
) -> None:
    asked = issuer.asked(DISCOVERY)
    issuer.failure = "slow"
    unknown = [asyncio.create_task(ask(gateway, forged(issuer, f"k{number}"))) for number in range(20)]
    await eventually(lambda: _is(issuer.asked(DISCOVERY) > asked))

    for known in (issuer, second):
        assert await quickest(gateway, [good(known) for _ in range(3)]) < 0.5
    assert {answer.refusal.code for answer in await asyncio.gather(*unknown)} == {"token_signature"}
    assert issuer.asked(DISCOVERY) == asked + 1
    issuer.release()


# Rotation of keys (JW4).


async def test_a_new_key_works_with_its_first_token_and_a_removed_one_is_refused_although_remembered(
    gateway: RunningGateway, issuer: Issuer
) -> None:
    old = good(issuer)
    assert (await ask(gateway, old)).status == 200
    asked = issuer.asked()
    issuer.rotate()

    assert (await ask(gateway, good(issuer))).status == 200
    assert issuer.asked() == asked + 1
    assert (await ask(gateway, old)).refusal.code == "token_signature"


async def test_a_second_rotation_within_the_interval_is_seen_after_it(
    gateway: RunningGateway, issuer: Issuer, clock: HandClock
) -> None:
    for is_new, wait_s, status in ((True, 0, 200), (True, 29, 401), (False, 1.1, 200)):
        if is_new:
            issuer.rotate(keep_old=True)
        clock.advance(wait_s)
        assert (await ask(gateway, good(issuer))).status == status


async def test_a_busy_instance_that_waits_for_its_new_key_does_not_use_its_failures_up(
    start_gateway: StartGateway, issuer: Issuer, clock: HandClock
) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__FAILURES_PER_MINUTE": "5"}, clock=clock)
    assert (await ask(gateway, good(issuer))).status == 200  # it waits for the first fetch, if that still runs
    issuer.rotate(keep_old=True)
    assert (await ask(gateway, good(issuer))).status == 200
    issuer.rotate(keep_old=True)
    busy = good(issuer)

    codes = {(await ask(gateway, busy)).refusal.code for _ in range(10)}

    assert codes == {"token_signature"}
    clock.advance(30)
    assert (await ask(gateway, busy)).status == 200
    for number in range(5):
        assert (await ask(gateway, forged(issuer, str(number)))).status == 401
    assert (await ask(gateway, good(issuer))).refusal.code == "auth_failures_exceeded"


# A flood of unknown key ids (JW5).


async def test_a_thousand_unknown_keys_cause_one_fetch_in_an_interval(
    start_gateway: StartGateway, issuer: Issuer, second: Issuer, clock: HandClock
) -> None:
    env = {"AIGW_CUSTOMER_PORTAL_URL": second.url, "AIGW_AUTH__FAILURES_PER_MINUTE": "0"}
    gateway = await start_gateway(env=env, clock=clock)
    await eventually(lambda: is_ready(gateway, issuers=2))
    before = (issuer.asked(), second.asked())
    known = good(issuer)

    for rounds in (1, 2):
        async with await gateway.connect() as connection:
            for number in range(500):
                token = forged(issuer, f"{rounds}-{number}")
                await connection.send(gateway.request_bytes("POST", "/v2/completions", json=BODY, token=token))
                assert (await connection.read_answer()).status == 401
                if number % 100 == 0:
                    assert (await ask(gateway, known)).status == 200
        assert (issuer.asked(), second.asked()) == (before[0] + rounds, before[1])
        clock.advance(30)


# Poisoned answers (JW6).


def jwk(key: rsa.RSAPrivateKey, **members: Any) -> dict[str, Any]:
    return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)} | members


def signed_again(token: str, key: rsa.RSAPrivateKey) -> str:
    """Without the library, which warns of weak keys."""
    said = token.rpartition(".")[0]
    signature = key.sign(said.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{said}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


STRANGER = 666
Poisoned = tuple[str, tuple[int, list[tuple[str, str]], bytes]]


def key_set(*keys: Any) -> Poisoned:
    return KEYS, (200, JSON, json.dumps({"keys": keys}).encode())


def discovery(issuer: Issuer, /, **changes: str) -> Poisoned:
    document = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}{KEYS}"} | changes
    return DISCOVERY, (200, JSON, json.dumps(document).encode())


def stranger(**members: Any) -> dict[str, Any]:
    return jwk(rsa_key(STRANGER), **{"kid": "stranger", **members})


POISONS: dict[str, Callable[[Issuer], Poisoned]] = {
    "a web page": lambda _: (KEYS, (200, [("Content-Type", "text/html")], b"<html>{}</html>")),
    "keys that say they are a web page": lambda _: (
        KEYS,
        (200, [("Content-Type", "text/html")], json.dumps({"keys": [stranger()]}).encode()),
    ),
    "no body": lambda _: (KEYS, (200, JSON, b"")),
    "an empty set": lambda _: key_set(),
    "an empty object": lambda _: (KEYS, (200, JSON, b"{}")),
    "a list": lambda _: (KEYS, (200, JSON, b"[]")),
    "null": lambda _: (KEYS, (200, JSON, b'{"keys":null}')),
    "truncated": lambda _: (KEYS, (200, JSON, json.dumps({"keys": [stranger()]}).encode()[:-9])),
    "not UTF-8": lambda _: (KEYS, (200, JSON, b'{"keys":["\xff"]}')),
    "too deep": lambda _: (KEYS, (200, JSON, b'{"keys":' + b"[" * 100_000)),
    "two megabytes": lambda _: (KEYS, (200, JSON, json.dumps({"keys": [stranger()]}).encode() + b" " * (2 << 20))),
    "ten thousand keys": lambda _: key_set(*[{"kty": "RSA"}] * 10_000),
    "one key too many": lambda _: key_set(*[stranger(kid=str(number)) for number in range(101)]),
    "a shared secret": lambda _: key_set({"kty": "oct", "k": "c2VjcmV0" * 8, "alg": "HS256", "kid": "s"}),
    "a weak key": lambda _: key_set(jwk(WEAK_KEY, kid="weak")),
    "a key for no algorithm": lambda _: key_set(stranger(alg="none")),
    "a key for encryption": lambda _: key_set(stranger(use="enc")),
    "a key of another algorithm": lambda _: key_set(stranger(alg="RS512")),
    "an elliptic key": lambda _: key_set({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
    "compressed": lambda _: (KEYS, (200, [*JSON, ("Content-Encoding", "gzip")], gzip.compress(b" " * (8 << 20)))),
    "a redirect": lambda issuer: (KEYS, (302, [("Location", f"{issuer.url}/elsewhere")], b"")),
    "an error": lambda _: (KEYS, (500, JSON, json.dumps({"keys": [stranger()]}).encode())),
    "discovery redirects": lambda issuer: (DISCOVERY, (301, [("Location", f"{issuer.url}/elsewhere")], b"")),
    "discovery without an issuer": lambda issuer: discovery(issuer, issuer=""),
    "discovery of the gateway itself": lambda issuer: discovery(issuer, issuer=AUDIENCE),
    "keys on another host": lambda issuer: discovery(issuer, jwks_uri="http://localhost:1/keys"),
    "keys in a file": lambda issuer: discovery(issuer, jwks_uri="file:///etc/passwd"),
    "keys behind a name trick": lambda issuer: discovery(issuer, jwks_uri=f"{issuer.url}@localhost:1/keys"),
    "keys behind a backslash": lambda issuer: discovery(issuer, jwks_uri="http://localhost:1\\@127.0.0.1/keys"),
    "keys at no address": lambda issuer: discovery(issuer, jwks_uri="http://127.0.0.1:99999/keys"),
}


@pytest.mark.parametrize("what", POISONS)
async def test_poison_takes_no_key_away_and_brings_none(gateway: RunningGateway, issuer: Issuer, what: str) -> None:
    path, answer = POISONS[what](issuer)
    issuer.poison[path] = answer
    asked = issuer.asked(DISCOVERY)

    for key in (rsa_key(STRANGER), WEAK_KEY):
        token = signed_again(good(issuer, jose={"kid": "stranger"}), key)
        assert (await ask(gateway, token)).refusal.code == "token_signature"

    assert issuer.asked(DISCOVERY) == asked + 1
    assert issuer.asked("/elsewhere") == 0
    assert (await ask(gateway, good(issuer))).status == 200
    row = (await gateway.monitoring("/readyz")).json()["checks"][f"issuer {issuer.url}"]
    assert not row["ok"]
    assert row["detail"]


async def test_bad_keys_are_dropped_one_by_one_and_of_two_with_one_id_the_first_stays(
    gateway: RunningGateway, issuer: Issuer
) -> None:
    entries = [
        {"kty": "oct", "k": "AAAA"},
        jwk(WEAK_KEY, kid="weak"),
        7,
        jwk(rsa_key(300), kid="new"),
        stranger(kid="new"),
    ]
    path, answer = key_set(*entries)
    issuer.poison[path] = answer

    assert (await ask(gateway, good(issuer, key=rsa_key(300)))).status == 200
    assert (await ask(gateway, good(issuer, key=rsa_key(STRANGER), jose={"kid": "new"}))).status == 401


async def test_keys_may_live_on_a_host_that_the_operator_names(
    start_gateway: StartGateway, issuer: Issuer, second: Issuer
) -> None:
    elsewhere = f"http://localhost:{second.server.port}{KEYS}"
    path, answer = discovery(issuer, jwks_uri=elsewhere)
    issuer.poison[path] = answer
    env = {"AIGW_AUTH__ISSUER_HOSTS": "localhost", **NO_LOCAL_KEYS, "AIGW_CUSTOMER_PORTAL_URL": second.url}
    gateway = await start_gateway(env=env)
    await eventually(lambda: is_ready(gateway, issuers=2))

    assert (await ask(gateway, good(issuer, key=second.key))).status == 200


# One of several is down (JW7).


async def test_an_issuer_that_is_down_does_not_touch_the_other(
    start_gateway: StartGateway, issuer: Issuer, second: Issuer
) -> None:
    issuer.failure = "slow"
    gateway = await start_gateway(env={"AIGW_CUSTOMER_PORTAL_URL": second.url, **NO_LOCAL_KEYS})
    await eventually(lambda: is_ready(gateway))

    assert await quickest(gateway, [good(second) for _ in range(3)]) < 0.5
    second.rotate()
    assert (await ask(gateway, good(second))).status == 200  # its own interval, its own fetch
    assert (await gateway.get("/monitoring/ready")).status == 200
    issuer.release()


async def test_one_issuers_key_never_signs_for_the_other(
    gateway: RunningGateway, issuer: Issuer, second: Issuer
) -> None:
    assert (await ask(gateway, good(issuer, key=second.key))).status == 401
    assert (await ask(gateway, good(second, key=issuer.key))).status == 401
    own_name = {"iss": "https://self-issuing.example"}
    assert (await ask(gateway, good(issuer, **own_name))).status == 200


# Clocks that differ (JW8).


@pytest.mark.parametrize(
    ("ahead_s", "code"),
    [(0, ""), (30, ""), (-30, ""), (300, "token_expired"), (-300, "token_not_yet_valid")],
)
async def test_clocks_may_differ_by_the_leeway_and_readiness_shows_by_how_much(
    start_gateway: StartGateway, issuer: Issuer, ahead_s: int, code: str
) -> None:
    document = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}{KEYS}"}
    issuer.poison[DISCOVERY] = (200, [*JSON, ("Date", formatdate(usegmt=True))], json.dumps(document).encode())
    gateway = await start_gateway(clock=HandClock(time.time() + ahead_s), env={"AIGW_CUSTOMER_PORTAL_URL": ""})
    await eventually(lambda: is_ready(gateway, issuers=1))

    answer = await ask(gateway, good(issuer, lifetime_s=60))

    assert (answer.status, answer.refusal.code if code else "") == (401 if code else 200, code)
    row = (await gateway.monitoring("/readyz")).json()["checks"][f"issuer {issuer.url}"]
    told = int(row["detail"].partition("clock ")[2].split(" s ")[0])
    assert abs(told + ahead_s) <= 2
    if code:
        await gateway.log.find(message="an issuer's clock differs from ours", issuer=issuer.url)


# What is remembered (JW10).


async def test_tokens_that_share_all_but_the_last_letters_are_strangers(
    gateway: RunningGateway, issuer: Issuer
) -> None:
    token = good(issuer)
    assert (await ask(gateway, token)).status == 200

    for other in (token[:-1], token[:-4], token + "A", token + "=", token + ".", token[:-5] + "AAAAA", token + "AAAA"):
        assert (await ask(gateway, good(issuer), {"Authorization": f"Bearer {other}"})).status == 401, other
    assert (await ask(gateway, token)).status == 200


async def test_a_remembered_token_ends_with_its_time(gateway: RunningGateway, issuer: Issuer, clock: HandClock) -> None:
    issuer.clock = clock
    token = good(issuer, lifetime_s=100)
    for advance_s, status in ((0, 200), (155, 200), (10, 401)):
        clock.advance(advance_s)
        assert (await ask(gateway, token)).status == status


async def test_a_remembered_token_answers_for_its_own_headers_only(gateway: RunningGateway, issuer: Issuer) -> None:
    token = good(issuer)
    assert (await ask(gateway, token)).status == 200

    assert (await ask(gateway, token, {"X-Gitlab-Realm": "saas"})).refusal.code == "header_mismatch"


# A flood of bad signatures (JW11).


async def test_an_address_that_keeps_failing_is_no_longer_looked_at_and_others_are(
    start_gateway: StartGateway, issuer: Issuer, clock: HandClock
) -> None:
    gateway = await start_gateway(env={"AIGW_TRUSTED_PROXIES": "127.0.0.1"}, clock=clock)
    await eventually(lambda: is_ready(gateway))
    known, fresh = good(issuer), good(issuer)
    bad: dict[str, str | None] = {"X-Forwarded-For": "203.0.113.9"}
    assert (await ask(gateway, known, bad)).status == 200

    codes = [(await ask(gateway, forged(issuer, str(number)), bad)).refusal.code for number in range(60)]

    assert codes == ["token_signature"] * 50 + ["auth_failures_exceeded"] * 10
    last = await ask(gateway, fresh, bad)
    assert (last.status, last.json()["error"], last.refusal.layer) == (401, "Forbidden by auth provider", "client")
    assert (await ask(gateway, known, bad)).status == 200  # what was verified before stays
    assert (await ask(gateway, fresh, {"X-Forwarded-For": "203.0.113.10"})).status == 200
    clock.advance(61)
    assert (await ask(gateway, good(issuer), bad)).status == 200


# What operators see.


async def test_metrics_tell_each_issuers_state(start_gateway: StartGateway, issuer: Issuer, second: Issuer) -> None:
    second.go_down()
    gateway = await start_gateway(env={"AIGW_CUSTOMER_PORTAL_URL": second.url})
    wanted = [
        f'torana_issuer_up{{issuer="{issuer.url}"}} 1',
        f'torana_issuer_keys{{issuer="{issuer.url}"}} 1',
        f'torana_issuer_key_age_seconds{{issuer="{issuer.url}"}} ',
        f'torana_issuer_up{{issuer="{second.url}"}} 0',
        f'torana_issuer_keys{{issuer="{second.url}"}} 0',
    ]

    async def are_shown() -> bool:
        shown = (await gateway.monitoring("/metrics")).text
        return all(line in shown for line in wanted)

    await eventually(are_shown)
    assert f'key_age_seconds{{issuer="{second.url}"}}' not in (await gateway.monitoring("/metrics")).text


async def test_refusals_are_counted_by_code_and_their_lines_say_who_refused_what(
    gateway: RunningGateway, issuer: Issuer
) -> None:
    rows = [
        (await gateway.post("/v2/completions"), "token_missing", "client", "Authorization"),
        (await ask(gateway, forged(issuer, "k")), "token_signature", "instance_token", None),
        (await ask(gateway, gateway.user_token(unit_primitives=[], exp=1)), "token_expired", "user_token", None),
        (
            await ask(gateway, good(issuer), {"X-Gitlab-Realm": "x"}),
            "header_mismatch",
            "header_match",
            "X-Gitlab-Realm",
        ),
        (await ask(gateway, good(issuer, scopes=[])), "unit_primitive_missing", "unit_primitive", "complete_code"),
    ]
    shown = (await gateway.monitoring("/metrics")).text

    for answer, code, layer, missing in rows:
        said = answer.refusal
        assert (said.code, said.layer) == (code, layer)
        assert said.remedy
        assert missing is None or said.missing == missing
        line = await gateway.log.find(logger="api.access", correlation_id=said.request_id)
        assert (line["refusal_code"], line["refusal_layer"], line.get("refusal_missing")) == (code, layer, said.missing)
        assert line["refusal_remedy"] == said.remedy
        assert f'torana_auth_refusals_total{{code="{code}"}} 1' in shown


async def quickest(gateway: RunningGateway, tokens: Sequence[str]) -> float:
    """Seconds: who waits for an issuer waits each time, and a busy machine seldom holds up every one."""
    took_s = []
    for token in tokens:
        began = time.monotonic()
        assert (await ask(gateway, token)).status == 200
        took_s.append(time.monotonic() - began)
    return min(took_s)


async def _is(value: bool) -> bool:
    return value
