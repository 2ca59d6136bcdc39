"""Authentication: contract 2.1, 2.2, 2.4, 2.7; checklist A1-A5, A7; the cost of bad tokens."""

import asyncio
import json
import logging
from collections.abc import Awaitable
from typing import Any

import pytest
from tests.support.access import (
    GITLAB,
    GITLAB_KEY,
    LOCAL_KEY,
    PORTAL,
    PORTAL_KEY,
    SERVICE,
    STRANGE_KEY,
    Access,
    headers_for,
    jwk,
    sign,
)
from tests.support.keys import rsa_key

from torana.access.memory import Bounded
from torana.access.tokens import GAP_S, MOST_IN_LINE, PATIENCE_S
from torana.caller import DEBUG_CALLER, Caller
from torana.catalog.records import DenyRecord
from torana.errors import Refusal
from torana.headers import Headers

CLIENT = "192.0.2.1"


@pytest.fixture
def access() -> Access:
    access = Access()
    access.publish_all()
    return access


async def ask(access: Access, token: str | None, client: str = CLIENT, **headers: str | None) -> Caller:
    return await access.verifier.authenticate(headers_for(token, **headers), client)


async def refusal(access: Access, token: str | None, client: str = CLIENT, **headers: str | None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await ask(access, token, client, **headers)
    return caught.value


# A1: no token, and the texts in order


NO_HEADER = "No authorization header presented"
NO_BEARER = "Invalid authorization header"
NO_OIDC = "Invalid authentication token type - only OIDC is supported"
FORBIDDEN = "Forbidden by auth provider"


@pytest.mark.parametrize(
    ("authorization", "kind", "realm", "text", "code"),
    [
        (None, None, "other", NO_HEADER, "token_missing"),
        ("", None, "other", NO_BEARER, "authorization_scheme"),
        ("Basic x", None, "other", NO_BEARER, "authorization_scheme"),
        ("Bearerx", None, "other", NO_BEARER, "authorization_scheme"),
        ("Bearer x", None, "other", NO_OIDC, "authentication_type"),
        ("Bearer x", "OIDC", "other", NO_OIDC, "authentication_type"),
        ("Bearer x", "oidc", "other", FORBIDDEN, "token_malformed"),
        ("Bearer", "oidc", "other", FORBIDDEN, "token_malformed"),
    ],
)
async def test_a_request_without_a_good_token_hears_the_first_reason(
    access: Access, authorization: str | None, kind: str | None, realm: str, text: str, code: str
) -> None:
    headers = {"authorization": authorization, "x_gitlab_authentication_type": kind, "x_gitlab_realm": realm}

    found = await refusal(access, None, **headers)

    assert (found.status, found.members, found.code) == (401, {"error": text}, code)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_without_regard_to_case(access: Access, scheme: str) -> None:
    token = sign(access.claims())

    assert (await ask(access, token, authorization=f"{scheme} {token}")).subject == "instance-1"


# A2: signature, expiry, not-before, audience


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": "somebody-else"}, "token_audience"),
        ({"aud": []}, "token_audience"),
        ({"aud": ["a", "b"]}, "token_audience"),
        ({"aud": {SERVICE: 1}}, "token_audience"),
        ({"aud": f"{SERVICE} "}, "token_audience"),
        ({"aud": None}, "token_audience"),
        ({"aud": ...}, "token_audience"),
        ({"exp": ...}, "token_malformed"),
    ],
)
async def test_a_token_for_somebody_else_or_without_end_is_refused(
    access: Access, changes: dict[str, Any], code: str
) -> None:
    found = await refusal(access, sign(access.claims(**changes)))

    assert (found.status, found.members, found.code) == (401, {"error": "Forbidden by auth provider"}, code)


@pytest.mark.parametrize(
    ("name", "offset_s", "code"),
    [
        ("exp", -59, None),
        ("exp", -60, "token_expired"),
        ("exp", -61, "token_expired"),
        ("exp", -300, "token_expired"),
        ("nbf", 60, None),
        ("nbf", 61, "token_not_yet_valid"),
        ("nbf", 300, "token_not_yet_valid"),
    ],
)
async def test_clocks_may_differ_by_the_leeway_and_no_more(
    access: Access, name: str, offset_s: int, code: str | None
) -> None:
    token = sign(access.claims(**{name: int(access.clock.now()) + offset_s}))

    if code is None:
        await ask(access, token)
    else:
        assert (await refusal(access, token)).code == code


@pytest.mark.parametrize(("leeway_s", "code"), [(0.0, "token_expired"), (60.0, None)])
async def test_the_leeway_is_a_setting(leeway_s: float, code: str | None) -> None:
    access = Access(leeway_s=leeway_s)
    access.publish_all()
    token = sign(access.claims(exp=int(access.clock.now()) - 1))

    if code is None:
        await ask(access, token)
    else:
        assert (await refusal(access, token)).code == code


async def test_a_remembered_token_ends_with_its_expiry(access: Access) -> None:
    token = sign(access.claims(exp=int(access.clock.now()) + 100))
    await ask(access, token)

    access.clock.advance(159)
    await ask(access, token)
    access.clock.advance(1)

    assert (await refusal(access, token)).code == "token_expired"


async def test_a_token_that_is_too_early_is_taken_when_its_time_has_come(access: Access) -> None:
    token = sign(access.claims(nbf=int(access.clock.now()) + 80))
    assert (await refusal(access, token)).code == "token_not_yet_valid"

    access.clock.advance(20)

    await ask(access, token)


# A3: kid is a hint, aud may be a list


@pytest.mark.parametrize("kid", [None, "gitlab-1", "portal-1", "unheard-of", ""])
@pytest.mark.parametrize("audience", [SERVICE, [SERVICE], ["other", SERVICE]])
async def test_the_key_id_is_a_hint_and_the_audience_may_be_a_list(
    access: Access, kid: str | None, audience: str | list[str]
) -> None:
    assert (await ask(access, sign(access.claims(aud=audience), kid=kid))).issuer == GITLAB


@pytest.mark.parametrize(
    ("issuer", "number", "passes"),
    [
        (GITLAB, GITLAB_KEY, True),
        (f"{GITLAB}/", GITLAB_KEY, True),
        (GITLAB, PORTAL_KEY, False),
        (GITLAB, LOCAL_KEY, False),
        (PORTAL, PORTAL_KEY, True),
        (PORTAL, GITLAB_KEY, False),
        (SERVICE, LOCAL_KEY, True),
        (SERVICE, GITLAB_KEY, False),
        (SERVICE, PORTAL_KEY, False),
        ("https://own.example", GITLAB_KEY, True),
        ("https://own.example", PORTAL_KEY, True),
        ("https://own.example", LOCAL_KEY, True),
        ("https://own.example", STRANGE_KEY, False),
        (..., PORTAL_KEY, True),
        (..., STRANGE_KEY, False),
    ],
)
async def test_a_known_issuer_is_believed_under_its_own_keys_only(issuer: Any, number: int, passes: bool) -> None:
    access = Access(signing=rsa_key(LOCAL_KEY))
    access.publish_all()
    await access.ring.refetch("")
    token = sign(access.claims(iss=issuer, sub="instance-1"), number)
    user = {"x_gitlab_global_user_id": "instance-1"}

    if passes:
        assert (await ask(access, token, **user)).is_user == (issuer == SERVICE)
    else:
        assert (await refusal(access, token, **user)).code == "token_signature"


@pytest.mark.parametrize(
    ("issuer", "code"), [(GITLAB, None), (f"{GITLAB}/", None), (PORTAL, "token_issuer"), (..., "token_issuer")]
)
async def test_the_allow_list_of_issuers_binds_where_it_is_set(issuer: Any, code: str | None) -> None:
    access = Access(issuers=(f"{GITLAB}/",))
    access.publish_all()
    token = sign(access.claims(iss=issuer), PORTAL_KEY if issuer == PORTAL else GITLAB_KEY)

    if code is None:
        await ask(access, token)
    else:
        assert (await refusal(access, token)).code == code


async def test_at_most_sixteen_keys_are_tried(access: Access) -> None:
    copies = [jwk(STRANGE_KEY, f"strange-{number}") for number in range(16)]
    access.fetcher.publish(GITLAB, *copies, jwk(GITLAB_KEY, "gitlab-1"))

    assert (await refusal(access, sign(access.claims()))).code == "token_signature"
    await ask(access, sign(access.claims(), kid="gitlab-1"))


# Scopes


@pytest.mark.parametrize(
    ("scopes", "held"),
    [
        (["duo_chat"], {"duo_chat"}),
        (["of_the_future"], {"of_the_future"}),
        (..., set()),
        (None, set()),
        ("duo_chat", set()),
        (["duo_chat", 5], set()),
        ({"duo_chat": True}, set()),
        (["code_suggestions"], {"code_suggestions", "complete_code", "generate_code"}),
        (["code_suggestions", "complete_code"], {"code_suggestions", "complete_code"}),
        (["code_suggestions", "generate_code"], {"code_suggestions", "generate_code"}),
    ],
)
async def test_scopes_grant_what_they_list_and_old_names_are_read_as_new_ones(
    access: Access, scopes: Any, held: set[str]
) -> None:
    assert (await ask(access, sign(access.claims(scopes=scopes)))).scopes == held


# A4, A5: claims and headers


@pytest.mark.parametrize(
    ("claims", "header", "value", "shown"),
    [
        ({}, "x_gitlab_realm", "saas", "X-Gitlab-Realm"),
        ({}, "x_gitlab_realm", "Self-Managed", "X-Gitlab-Realm"),
        ({}, "x_gitlab_realm", None, "X-Gitlab-Realm"),
        ({}, "x_gitlab_realm", "", "X-Gitlab-Realm"),
        ({"gitlab_instance_id": "other"}, "x_gitlab_instance_id", "instance-1", "X-Gitlab-Instance-Id"),
        ({"gitlab_instance_id": "instance-1"}, "x_gitlab_instance_id", None, "X-Gitlab-Instance-Id"),
        ({}, "x_gitlab_instance_id", "other", "X-Gitlab-Instance-Id"),
        ({}, "x_gitlab_instance_id", None, "X-Gitlab-Instance-Id"),
    ],
)
async def test_a_header_that_disagrees_with_its_claim_is_refused(
    access: Access, claims: dict[str, Any], header: str, value: str | None, shown: str
) -> None:
    found = await refusal(access, sign(access.claims(**claims)), **{header: value})

    assert (found.status, found.members, found.code) == (
        401,
        {"error": f"Header mismatch '{shown}'"},
        "header_mismatch",
    )
    assert found.missing == shown


async def test_headers_are_matched_for_remembered_tokens_too(access: Access) -> None:
    token = sign(access.claims())
    await ask(access, token)

    assert (await refusal(access, token, x_gitlab_realm="saas")).code == "header_mismatch"


@pytest.mark.parametrize("name", ["gitlab_realm", "sub"])
@pytest.mark.parametrize("value", ["", None, ...])
async def test_an_empty_or_absent_claim_is_not_matched(access: Access, name: str, value: Any) -> None:
    header = {"gitlab_realm": "x_gitlab_realm", "sub": "x_gitlab_instance_id"}[name]

    await ask(access, sign(access.claims(**{name: value})), **{header: "anything"})


async def test_a_claim_beyond_latin_letters_matches_its_utf8_bytes(access: Access) -> None:
    value = "Zürich-東京"

    await ask(access, sign(access.claims(gitlab_realm=value)), x_gitlab_realm=value)
    found = await refusal(access, sign(access.claims(gitlab_realm=value)), x_gitlab_realm="Zürich")
    assert found.code == "header_mismatch"


@pytest.mark.parametrize("header", ["4", None])
async def test_a_differing_seat_count_is_logged_and_passes(
    access: Access, header: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "torana.access"):
        await ask(access, sign(access.claims(duo_seat_count=5)), x_gitlab_duo_seat_count=header)

    assert "Duo-Seat-Count" in caplog.text


async def test_a_user_token_is_matched_with_the_user_and_an_instance_token_is_not() -> None:
    access = Access(signing=rsa_key(LOCAL_KEY))
    user = sign(access.claims(iss=SERVICE, sub="user-1"), LOCAL_KEY)

    assert (await ask(access, user)).is_user
    assert (await refusal(access, user, x_gitlab_global_user_id="user-2")).missing == "X-Gitlab-Global-User-Id"


async def test_lenient_matching_lets_absent_headers_pass_but_not_wrong_ones(access: Access) -> None:
    caller = await access.verifier.verify(sign(access.claims()), CLIENT)

    access.verifier.match_headers(
        caller, headers_for(None, x_gitlab_realm=None, x_gitlab_instance_id=None), lenient=True
    )
    with pytest.raises(Refusal, match="Header mismatch 'X-Gitlab-Realm'"):
        access.verifier.match_headers(caller, headers_for(None, x_gitlab_realm="saas"), lenient=True)


# A7: rotation of local keys


async def test_a_token_of_the_old_signing_key_stays_valid_after_the_swap() -> None:
    old, new = rsa_key(LOCAL_KEY), rsa_key(STRANGE_KEY)
    before = Access(signing=old)
    token = before.local.sign(before.claims(iss=SERVICE, sub="user-1"))

    after = Access(signing=new, validation=old)
    later = Access(signing=new)

    assert (await ask(after, token)).subject == "user-1"
    assert (await ask(after, after.local.sign(after.claims(iss=SERVICE, sub="user-1")))).is_user
    assert (await refusal(later, token)).code == "token_signature"


# No keys


async def test_without_any_key_the_answer_is_503_and_never_401() -> None:
    access = Access()

    found = await refusal(access, sign(access.claims()))

    assert (found.status, found.code, list(found.members)) == (503, "keys_unavailable", ["error"])


async def test_keys_that_appear_are_used_at_once_although_a_503_was_given() -> None:
    access = Access()
    await refusal(access, sign(access.claims()))

    access.publish_all()
    access.clock.advance(30)

    await ask(access, sign(access.claims()))


# 2.7: bypasses


async def test_a_full_bypass_lets_everybody_pass_and_says_so_each_time(caplog: pytest.LogCaptureFixture) -> None:
    access = Access(bypass_external=True)

    assert [await ask(access, None), await ask(access, "nonsense")] == [DEBUG_CALLER, DEBUG_CALLER]
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * 2


@pytest.mark.parametrize(("value", "passes"), [("true", True), ("false", False), ("1", False), (None, False)])
async def test_a_bypass_with_header_needs_the_header(
    value: str | None, passes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    access = Access(bypass_with_header=True)

    if passes:
        assert (await ask(access, None, bypass_auth=value)).is_debug
        assert caplog.records[0].levelno == logging.CRITICAL
    else:
        assert (await refusal(access, None, bypass_auth=value)).code == "token_missing"


async def test_the_bypass_header_means_nothing_while_its_switch_is_off(access: Access) -> None:
    assert (await refusal(access, None, bypass_auth="true")).code == "token_missing"


async def test_a_signature_bypass_leaves_all_other_checks(caplog: pytest.LogCaptureFixture) -> None:
    access = Access(bypass_jwt_signature=True)
    token = sign(access.claims(), STRANGE_KEY)

    assert (await ask(access, token)).subject == "instance-1"
    await ask(access, token)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * 2
    assert (await refusal(access, sign(access.claims(aud="x"), STRANGE_KEY))).code == "token_audience"
    assert (await refusal(access, sign(access.claims(exp=5), STRANGE_KEY))).code == "token_expired"
    assert (await refusal(access, token, x_gitlab_realm="saas")).code == "header_mismatch"


# The cost of bad tokens


async def test_an_address_that_keeps_failing_is_refused_before_any_cryptography() -> None:
    access = Access(failures_per_minute=3)
    access.publish_all()
    remembered = sign(access.claims(jti="remembered"))
    await ask(access, remembered)
    for number in range(3):
        assert (await refusal(access, f"bad-{number}")).code == "token_malformed"

    fresh = sign(access.claims(jti="fresh"))
    found = await refusal(access, fresh)

    assert (found.code, found.members) == ("auth_failures_exceeded", {"error": "Forbidden by auth provider"})
    await ask(access, remembered)
    await ask(access, fresh, client="192.0.2.2")
    access.clock.advance(60)
    await ask(access, sign(access.claims(jti="later")))


async def test_the_bound_is_named_in_the_log_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    access = Access(failures_per_minute=2)
    for number in range(5):
        await refusal(access, f"bad-{number}")

    assert caplog.text.count("AIGW_AUTH__FAILURES_PER_MINUTE") == 1


@pytest.mark.parametrize("client", ["10.1.2.3", "2001:db8::7"])
async def test_failures_behind_a_trusted_proxy_itself_are_never_counted(client: str) -> None:
    access = Access(failures_per_minute=1, trusted_proxies=("10.0.0.0/8", "2001:db8::/32"))
    access.publish_all()
    for number in range(5):
        await refusal(access, f"bad-{number}", client=client)

    await ask(access, sign(access.claims()), client=client)


async def test_zero_means_no_bound() -> None:
    access = Access(failures_per_minute=0)
    access.publish_all()
    for number in range(100):
        await refusal(access, f"bad-{number}")

    await ask(access, sign(access.claims()))


async def test_a_token_refused_for_want_of_a_key_is_looked_at_again_when_the_keys_change(access: Access) -> None:
    await access.ring.refetch("")
    token = sign(access.claims(), STRANGE_KEY)
    assert (await refusal(access, token)).code == "token_signature"

    access.fetcher.publish(GITLAB, jwk(STRANGE_KEY, "gitlab-2"))
    access.clock.advance(29)
    assert (await refusal(access, token)).code == "token_signature"
    access.clock.advance(1)

    await ask(access, token)


async def test_a_refused_token_is_remembered_for_a_minute_without_another_fetch(access: Access) -> None:
    token = sign(access.claims(aud="x"))
    await refusal(access, token)
    asked = len(access.fetcher.requests)

    for _ in range(10):
        assert (await refusal(access, token)).code == "token_audience"

    assert len(access.fetcher.requests) == asked


# The deny list


async def turns_during(work: Awaitable[Any]) -> int:
    """How often others had their turn of the event loop meanwhile."""
    loop, turns, is_over = asyncio.get_running_loop(), 0, False

    def take_a_turn() -> None:
        nonlocal turns
        turns += 1
        if not is_over:
            loop.call_soon(take_a_turn)

    take_a_turn()
    await work
    is_over = True
    return turns


@pytest.mark.parametrize("fault", [{}, {"exp": 1000}, {"aud": "somebody else"}])
async def test_in_a_burst_of_unknown_tokens_others_get_their_turn_between_any_two(
    access: Access, fault: dict[str, Any]
) -> None:
    tokens = [sign(access.claims(jti=f"token-{number}", **fault), STRANGE_KEY) for number in range(20)]

    refusals = [refusal(access, token, client=f"192.0.2.{number}") for number, token in enumerate(tokens)]

    assert await turns_during(asyncio.gather(*refusals)) >= len(tokens)


async def test_where_many_unknown_tokens_wait_one_that_is_refused_at_sight_does_not_join_them() -> None:
    now_s = 100.0
    access = Access(failures_per_minute=0, now=lambda: now_s)
    access.publish_all()
    known = sign(access.claims(jti="known"))
    await ask(access, known)
    assert (await refusal(access, "remembered")).code == "token_malformed"
    await ask(access, known)

    waiting = [asyncio.create_task(refusal(access, f"unknown-{number}")) for number in range(MOST_IN_LINE)]
    await asyncio.sleep(0)
    assert (await refusal(access, "remembered")).code == "token_malformed"

    assert not any(each.done() for each in waiting)
    now_s += PATIENCE_S
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("passed_s", [GAP_S, PATIENCE_S])
async def test_an_unknown_token_waits_for_a_gap_between_known_ones_and_not_for_ever(passed_s: float) -> None:
    now_s = 100.0
    access = Access(now=lambda: now_s)
    access.publish_all()
    known = sign(access.claims(jti="known"))
    for _ in range(2):
        await ask(access, known)

    unknown = asyncio.create_task(ask(access, sign(access.claims())))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not unknown.done()
    now_s += passed_s
    if passed_s == PATIENCE_S:
        await ask(access, known)

    await unknown


async def test_others_get_their_turn_between_any_two_keys_that_are_tried() -> None:
    access = Access()
    access.fetcher.publish(GITLAB, *(jwk(number, f"key-{number}") for number in range(100, 110)))
    await refusal(access, sign(access.claims(jti="first"), STRANGE_KEY))  # fetches the keys

    assert await turns_during(refusal(access, sign(access.claims(), STRANGE_KEY))) >= 10


async def test_a_key_that_is_taken_back_while_others_are_tried_verifies_nothing_any_more() -> None:
    access = Access()
    others = [jwk(number, f"key-{number}") for number in range(100, 110)]
    access.fetcher.publish(GITLAB, *others, jwk(GITLAB_KEY, "stolen"))
    await refusal(access, sign(access.claims(jti="first"), STRANGE_KEY))  # fetches the keys
    token = sign(access.claims())

    asked = asyncio.create_task(refusal(access, token))
    await asyncio.sleep(0)
    access.fetcher.publish(GITLAB, *others)
    access.clock.advance(access.settings.key_refetch_s)
    assert await access.ring.refetch(GITLAB)
    assert not asked.done()

    assert (await asked).code == "token_signature"
    assert (await refusal(access, token)).code == "token_signature"


async def test_of_the_same_token_many_times_at_once_one_is_verified() -> None:
    access = Access(failures_per_minute=2)
    access.publish_all()
    await ask(access, sign(access.claims(jti="first")))
    token = sign(access.claims())

    callers = await asyncio.gather(*(ask(access, token) for _ in range(20)))

    assert all(caller is callers[0] for caller in callers)


async def test_a_burst_from_one_address_is_bounded_as_tokens_one_by_one_are() -> None:
    access = Access(failures_per_minute=5)
    access.publish_all()
    tokens = [sign(access.claims(jti=f"token-{number}"), STRANGE_KEY) for number in range(20)]

    found = await asyncio.gather(*(refusal(access, token) for token in tokens))

    codes = [one.code for one in found]
    assert codes == ["token_signature"] * 5 + ["auth_failures_exceeded"] * 15


@pytest.mark.parametrize(
    "record",
    [
        DenyRecord(name="a", instance="instance-1"),
        DenyRecord(name="a", instance="uid-1"),
        DenyRecord(name="a", token_id="token-1"),
        DenyRecord(name="a", instance="instance-1", token_id="token-1"),
        DenyRecord(name="a", user="user-1"),
        DenyRecord(name="a", user="user-1", instance="instance-1"),
    ],
)
async def test_whoever_is_on_the_deny_list_is_refused_at_once_although_remembered(
    access: Access, record: DenyRecord
) -> None:
    token = sign(access.claims(gitlab_instance_uid="uid-1"))
    await ask(access, token)

    access.verifier.set_deny_list([record])
    found = await refusal(access, token)
    assert (found.status, found.code, found.members) == (401, "token_revoked", {"error": "Forbidden by auth provider"})

    access.verifier.set_deny_list([])
    await ask(access, token)


@pytest.mark.parametrize(
    "record",
    [
        DenyRecord(name="a"),
        DenyRecord(name="a", instance="instance-2"),
        DenyRecord(name="a", user="instance-1"),
        DenyRecord(name="a", instance="instance-1", token_id="token-2"),
        DenyRecord(name="a", instance="instance-2", user="user-1"),
    ],
)
async def test_a_record_that_does_not_match_whole_denies_nobody(access: Access, record: DenyRecord) -> None:
    access.verifier.set_deny_list([record])

    await ask(access, sign(access.claims()))


def test_a_full_memory_forgets_what_was_put_in_first() -> None:
    memory = Bounded[str, int](2)

    for number, name in enumerate("abac"):
        memory.put(name, number)

    assert (len(memory), memory.get("a"), memory.get("b"), memory.get("c")) == (2, 2, None, 3)


async def test_a_denied_user_is_refused_by_his_own_token_too() -> None:
    access = Access(signing=rsa_key(LOCAL_KEY))
    access.verifier.set_deny_list([DenyRecord(name="a", user="user-1")])

    found = await refusal(access, sign(access.claims(iss=SERVICE, sub="user-1"), LOCAL_KEY))

    assert (found.code, found.layer) == ("token_revoked", "user_token")


async def test_no_log_line_holds_a_token(access: Access, caplog: pytest.LogCaptureFixture) -> None:
    tokens = [sign(access.claims()), sign(access.claims(aud="x")), sign(access.claims(), STRANGE_KEY), "secret-garbage"]
    with caplog.at_level(logging.DEBUG):
        await ask(access, tokens[0])
        for token in tokens[1:]:
            await refusal(access, token)

    told = json.dumps([str(record.__dict__) for record in caplog.records if record.name.startswith("torana")])
    assert not any(token in told or token.split(".")[-1][:40] in told for token in tokens)


# One connection, one head


async def again(access: Access, headers: Headers, **changes: str | None) -> tuple[Headers, Caller | None]:
    """The next request on the connection, and whom it is from without another look."""
    pairs = [pair for pair in headers.pairs if pair[0].decode() not in changes]
    pairs += [(name.encode(), value.encode()) for name, value in changes.items() if value is not None]
    following = Headers(pairs, headers)
    return following, access.verifier.recognize(following, lenient=False)


async def test_a_head_that_was_let_pass_is_known_again_on_its_connection(access: Access) -> None:
    headers = headers_for(sign(access.claims()))
    assert access.verifier.recognize(headers, lenient=False) is None
    caller = await access.verifier.authenticate(headers, CLIENT)

    following, known = await again(access, headers, **{"content-length": "7", "x-request-id": "other"})

    assert known is caller
    assert (following.get(b"content-length"), following.get(b"x-request-id")) == ("7", "other")
    assert access.verifier.recognize(following, lenient=True) is None
    assert (await again(access, following, **{"content-length": None}))[1] is caller


@pytest.mark.parametrize(
    "changes", [{"x-gitlab-realm": "saas"}, {"x-gitlab-realm": None}, {"x-api-key": "k"}, {"authorization": "Bearer e"}]
)
async def test_a_head_that_differs_is_looked_at_again(access: Access, changes: dict[str, str | None]) -> None:
    headers = headers_for(sign(access.claims()))
    await access.verifier.authenticate(headers, CLIENT)

    following, known = await again(access, headers, **changes)

    assert known is None
    assert following.kept == {}


async def test_a_token_that_has_expired_or_was_denied_is_not_known_again(access: Access) -> None:
    headers = headers_for(sign(access.claims()))
    caller = await access.verifier.authenticate(headers, CLIENT)

    access.verifier.set_deny_list([DenyRecord(name="a", instance="nobody")])
    denied = (await again(access, headers))[1]
    await access.verifier.authenticate(headers, CLIENT)
    before = (await again(access, headers))[1]
    access.clock.advance(caller.expires_at + 3600 - access.clock.now())

    assert (denied, before, (await again(access, headers))[1]) == (None, caller, None)


async def test_a_seat_count_that_differs_is_said_each_time(access: Access, caplog: pytest.LogCaptureFixture) -> None:
    headers = headers_for(sign(access.claims(duo_seat_count=5)), x_gitlab_duo_seat_count="4")
    await access.verifier.authenticate(headers, CLIENT)

    assert (await again(access, headers))[1] is None
