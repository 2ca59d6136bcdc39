"""Requests made to slip past the gate: addresses, hosts, repeated and folded headers, claimed addresses."""

import json

import pytest
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway, gitlab_headers
from tests.support.http_client import Answer

CURSOR = {"file_name": "a.py", "content_above_cursor": "x", "content_below_cursor": ""}
BODY = json.dumps({"prompt_version": 1, "current_file": CURSOR}).encode()
PATH = "/v2/completions"

OTHER_SPELLINGS = [
    "//v2/completions", "///v2/completions", "/./v2/completions", "/v2//completions", "/v2/./completions",
    "/v2/../v2/completions", "/V2/completions", "/v2/Completions", "/v2/completions/", "/v2/completions//",
    "/v2/completions;a=b", "/v2/completions%00", "/v2/completions%0a", "/v2/completions%20", "/v2/completions.json",
    "/v2%252Fcompletions", "/%2e%2e/v2/completions", "/%2e/v2/completions", "/v2/%2e/completions",
    "/ai/ai/v2/completions", "/AI/v2/completions", "/aiv2/completions", "/ai//v2/completions",
    "/ai/../v2/completions", "/v2\\completions", "/v2/completions\\", "/\\v2/completions", "/v2/completions%5c",
    "/v2%5Ccompletions", "/v2/completions/monitoring/healthz", "/monitoring/healthz/../../v2/completions",
    "/monitoring/healthz/..%2f..%2fv2/completions", "/monitoring/healthz%2f..%2f..%2fv2%2fcompletions",
    "/monitoring/healthz;/v2/completions", "/v1/models/definitions/../../../v2/completions",
    "/v1/models%2fdefinitions%2f..%2f..%2fv2/completions", "/.well-known/jwks.json/../../v2/completions",
    "/metrics/../v2/completions", "/v2/completions%3f/monitoring/healthz", "/v2/completions%23",
    "/v2/\u00e7ompletions", "/v2/completions\u00ad", "/\u2215v2/completions", "/v2/%c0%afcompletions",
    "/v1/proxy/../../v2/completions", "/v1/prompts/../../v2/completions",
    "http://gateway.test/monitoring/healthz/../v2/completions", "http://gateway.test//v2/completions",
    "https://gateway.test@evil/./v2/completions", "*", "completions", "v2/completions",
]  # fmt: skip
"""None of these is an address of the completions."""

SAME_SPELLINGS = [
    PATH,
    "/v2%2Fcompletions",
    "/v2%2fcompletions",
    "/%76%32/completions",
    "/ai/v2/completions",
    "/ai%2Fv2%2Fcompletions",
    "/v2/completions?path=/monitoring/healthz",
    "/v2/completions?/../monitoring/healthz",
    "http://gateway.test/v2/completions",
    "http://evil.example/v2/completions",
]
"""Each of these is one: it works with a token, and not without."""

NEARLY_OPEN = [
    "//monitoring/healthz", "/monitoring//healthz", "/monitoring/healthz/", "/Monitoring/healthz",
    "/monitoring/HEALTHZ", "/monitoring/./healthz", "/monitoring/healthz%20", "/monitoring/healthz%00",
    "/monitoring/healthz;x", "/monitoring", "/monitoring/healthz/x", "/x/../monitoring/healthz",
    "/v1/models/definitions/", "/v1/models/definitions/x", "/.well-known/", "/.well-known/jwks.json/", "/metrics/",
    "/ai/ai/monitoring/healthz", "/docs", "/openapi.json", "/redoc",
]  # fmt: skip
"""No addresses that need no token."""


async def ask(gateway: RunningGateway, target: str, token: str | None, method: str = "POST") -> Answer:
    wire = target.encode("utf-8").decode("latin-1")
    async with await gateway.connect() as connection:
        await connection.send(gateway.request_bytes(method, wire, body=BODY if method == "POST" else b"", token=token))
        return await connection.read_answer(method)


async def test_no_other_spelling_of_an_address_passes(gateway: RunningGateway) -> None:
    token = gateway.token(unit_primitives=["complete_code"])
    wrong = []
    for target in OTHER_SPELLINGS:
        without, with_it = await ask(gateway, target, None), await ask(gateway, target, token)
        if without.status not in (400, 401) or with_it.status not in (400, 403, 404, 405, 422):
            wrong.append((target, without, with_it))
    assert wrong == []
    assert gateway.provider.requests == []


@pytest.mark.parametrize("target", SAME_SPELLINGS)
async def test_every_true_spelling_of_an_address_needs_the_token(gateway: RunningGateway, target: str) -> None:
    assert (await ask(gateway, target, None)).status == 401
    assert (await ask(gateway, target, gateway.token(unit_primitives=["duo_chat"]))).status == 403
    assert (await ask(gateway, target, gateway.token(unit_primitives=["complete_code"]))).status == 200


async def test_what_is_nearly_an_open_address_is_not_open(gateway: RunningGateway) -> None:
    wrong = [
        (method, target, answer)
        for method in ("GET", "POST")
        for target in NEARLY_OPEN
        if (answer := await ask(gateway, target, None, method)).status not in (400, 401)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "gateway.test/monitoring/healthz?"},
        {"Host": "monitoring"},
        {"Host": ""},
        {"X-Original-URL": "/monitoring/healthz", "X-Rewrite-URL": "/monitoring/healthz"},
        {"X-Forwarded-Prefix": "/monitoring/healthz", "X-Forwarded-Uri": "/monitoring/healthz"},
        {"X-HTTP-Method-Override": "OPTIONS"},
        {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
        {"Bypass-Auth": "true", "X-Bypass-Auth": "true"},
        {"Access-Control-Request-Method": "POST", "Origin": "https://evil.example"},
        {"Upgrade": "websocket", "Connection": "upgrade"},
        {"Via": "1.1 torana"},
        {"x-api-key": "anything", "api-key": "anything"},
    ],
)
async def test_no_header_stands_in_for_a_token(gateway: RunningGateway, headers: dict[str, str | None]) -> None:
    answer = await gateway.post(PATH, body=BODY, headers=headers)

    assert (answer.status, answer.refusal.code) == (401, "token_missing")


async def send_lines(gateway: RunningGateway, lines: list[str], body: bytes = BODY) -> Answer | None:
    """A request of exactly these header lines; None where the gateway just closes."""
    head = [f"POST {PATH} HTTP/1.1", "Host: gateway.test", f"Content-Length: {len(body)}", *lines, "", ""]
    async with await gateway.connect() as connection:
        await connection.send("\r\n".join(head).encode("latin-1") + body)
        return await connection.read_answer()


def lines_of(headers: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


WHO_CALLS = {
    "Authorization": "Invalid authorization header",
    "X-Gitlab-Authentication-Type": "Invalid authentication token type - only OIDC is supported",
    "X-Gitlab-Realm": "Header mismatch 'X-Gitlab-Realm'",
    "X-Gitlab-Instance-Id": "Header mismatch 'X-Gitlab-Instance-Id'",
    "X-Gitlab-Global-User-Id": "Header mismatch 'X-Gitlab-Global-User-Id'",
}


@pytest.mark.parametrize("name", WHO_CALLS)
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_header_that_says_two_things_is_refused_whichever_comes_first(
    gateway: RunningGateway, name: str, is_first: bool
) -> None:
    good = lines_of(gitlab_headers(gateway.user_token(unit_primitives=["complete_code"])))
    for value in ("another", "", "Bearer x.y.z", f"Bearer {gateway.token(unit_primitives=['complete_code'])}"):
        for spelled in (name, name.lower(), name.upper()):
            other = f"{spelled}: {value}"
            answer = await send_lines(gateway, [other, *good] if is_first else [*good, other])
            assert answer is not None
            assert answer.status == 401
            assert answer.json()["error"] in (WHO_CALLS[name], "Forbidden by auth provider")
    assert gateway.provider.requests == []


async def test_a_header_that_says_the_same_twice_passes(gateway: RunningGateway) -> None:
    good = lines_of(gitlab_headers(gateway.user_token(unit_primitives=["complete_code"])))

    answer = await send_lines(gateway, [*good, *good])

    assert answer is not None
    assert answer.status == 200


async def test_lines_that_parsers_read_differently_pass_nothing(gateway: RunningGateway) -> None:
    headers = gitlab_headers(gateway.token(unit_primitives=["complete_code"]))
    token = headers.pop("Authorization")
    realm = headers.pop("X-Gitlab-Realm")
    rest = lines_of(headers)
    auth, true_realm = f"Authorization: {token}", f"X-Gitlab-Realm: {realm}"
    forms = [
        [f"Authorization:\r\n {token}", "X-Gitlab-Realm: saas"],
        [auth, "X-Gitlab-Realm: saas\r\n self-managed"],
        [auth, "X-Gitlab-Realm: self-managed\r\n saas"],
        [auth, "X-Gitlab-Realm : self-managed"],
        [auth, " X-Gitlab-Realm: self-managed"],
        [auth, "X-Gitlab-Realm\t: self-managed"],
        [auth, "X_Gitlab_Realm: self-managed"],
        [auth, "X-Gitlab-Realm: self-managed\x00"],
        [auth, "X-Gitlab-Realm: self-managed,saas"],
        [auth, "X-Gitlab-Realm: SELF-MANAGED"],
        [auth, "X-Gitlab-Realm"],
        [f"Authorization : {token}", true_realm],
        [f"Authorization_: {token}", true_realm],
        [f"Authorization: {token}\x00", true_realm],
        [f"Authorization: {token}, {token}", true_realm],
        [f"Authorization: {token.replace(' ', '')}", true_realm],
        [f"Authorization: {token.replace('Bearer', 'Basic')}", true_realm],
        [f"Authorization: {token.replace('Bearer ', '')}", true_realm],
        [f"Authorization: Token {token}", true_realm],
        [f"Proxy-Authorization: {token}", true_realm],
        [f"X-Authorization: {token}", true_realm],
        [f"Cookie: Authorization={token}", true_realm],
        [f"X-Note: a\r\rAuthorization: {token}", true_realm],
        [f"X-Note: a\nb\rAuthorization: {token}", true_realm],
    ]
    for form in forms:
        answer = await send_lines(gateway, [*rest, *form])
        assert answer is None or answer.status in (400, 401), (form, answer)
    assert gateway.provider.requests == []
    passed = await send_lines(gateway, [*rest, auth, true_realm])
    assert passed is not None
    assert passed.status == 200


async def test_a_second_request_hidden_in_the_first_has_no_identity_of_its_own(gateway: RunningGateway) -> None:
    headers = gitlab_headers(gateway.token(unit_primitives=["complete_code"]))
    hidden = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    first = gateway.request_bytes("POST", PATH, body=BODY, headers=dict(headers))
    async with await gateway.connect() as connection:
        await connection.send(first + hidden)
        assert (await connection.read_answer()).status == 200
        assert (await connection.read_answer()).status == 401
    for lines in (
        ["Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Transfer-Encoding : chunked"],
        ["Content-Length: 0"],
        ["Content-Length: +1"],
    ):
        sent = len(gateway.provider.requests)
        answer = await send_lines(gateway, [*lines_of(headers), *lines], b"0\r\n\r\n" + hidden)
        assert answer is None or answer.status in (400, 422), (lines, answer)
        assert len(gateway.provider.requests) == sent


async def test_a_claimed_address_does_not_shake_off_the_bound_on_failures(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__FAILURES_PER_MINUTE": "5"})
    codes = []
    for number in range(10):
        token = gateway.token(unit_primitives=["complete_code"])[:-4] + "AAAA"
        claimed: dict[str, str | None] = {"X-Forwarded-For": f"203.0.113.{number}", "X-Real-IP": f"203.0.113.{number}"}
        codes.append((await gateway.post(PATH, body=BODY, token=token, headers=claimed)).refusal.code)

    assert codes == ["token_signature"] * 5 + ["auth_failures_exceeded"] * 5


async def test_whoever_has_a_network_of_addresses_has_one_count_of_failures(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(env={"AIGW_AUTH__FAILURES_PER_MINUTE": "5", "AIGW_TRUSTED_PROXIES": "127.0.0.1"})

    async def fail(address: str) -> str:
        token = gateway.token(unit_primitives=["complete_code"])[:-4] + "AAAA"
        answer = await gateway.post(PATH, body=BODY, token=token, headers={"X-Forwarded-For": address})
        return answer.refusal.code

    codes = [await fail(f"2001:db8:7:1:{number}::{number}") for number in range(7)]

    assert codes == ["token_signature"] * 5 + ["auth_failures_exceeded"] * 2
    assert [await fail(other) for other in ("2001:db8:7:2::1", "203.0.113.7")] == ["token_signature"] * 2


async def test_no_log_line_shows_a_token_good_or_bad(gateway: RunningGateway) -> None:
    good = gateway.token(unit_primitives=["complete_code"])
    bad = good[:-4] + "AAAA"
    for token in (good, bad):
        await gateway.post(PATH, body=BODY, token=token)
    await gateway.get(f"/v2/completions?token={good}", token=good)
    await gateway.log.find(logger="api.access", status_code=401)

    written = b"".join(gateway.log.raw).decode()
    assert good.split(".")[2][:40] not in written
    assert good.split(".")[1][:60] not in written
