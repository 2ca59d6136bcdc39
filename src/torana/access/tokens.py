"""JWT → Caller: who is calling, with every check spelled out (contract 2).

The usual request costs a hash and two dictionary look-ups: a verified token is remembered until it
expires, or until the keys or the deny list change. Everything else is made dear for the sender of
bad tokens only: the cheap checks come first, a refusal is remembered for a minute, and an address
that keeps failing is refused before any cryptography. Unknown tokens are looked at one in a turn of the event
loop, key by key, in the gaps that known ones leave, so that a flood of them stands between nobody else and their
answer.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torana.access import jose
from torana.access.claims import Claims, caller_of, faults, read_claims, read_old_names
from torana.access.deny import DenyList
from torana.access.jose import BadToken, Jws
from torana.access.keys import KeyRing
from torana.access.memory import Bounded, Counts, MinuteCounts
from torana.access.shown import match_claim, refuse_repeated, shown_token
from torana.auth_settings import AuthSettings
from torana.caller import DEBUG_CALLER, Caller
from torana.catalog.records import DenyRecord, UnitPrimitive
from torana.clock import Clock
from torana.errors import Layer, Refusal
from torana.headers import Headers
from torana.networks import Networks, holder

logger = logging.getLogger("torana.access")

FORBIDDEN = "Forbidden by auth provider"
MOST_IN_LINE = 100
"""Unknown tokens in line before those that are refused at sight do not join it any longer."""
REFUSAL_MEMORY_S = 60.0
GAP_S = 0.002
"""An unknown token waits until no known one has come for so long: about what a call needs of the CPU before it waits
for its model, and less than anybody notices who comes with a new token once an hour."""
PATIENCE_S = 0.02
"""But no longer than this; then one has its turn in each turn of the event loop, whoever else is there."""
VERIFIED_ENTRIES = 10_000
REFUSED_ENTRIES = 10_000
_PIECE_BYTES = 2047


_KEPT = "caller"
"""Of the headers' keepings: who was let pass with them."""


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    until: float
    """Unix seconds: `exp` and the leeway."""
    epoch: int


@dataclass(frozen=True, slots=True)
class _Refused:
    """Texts alone: the exception itself would keep the frames that it was raised in, ten thousand times."""

    code: str
    detail: str
    layer: Layer | None
    until: float
    """Monotonic seconds."""
    epoch: int


class Verifier:
    """Turns tokens into callers; raises Refusal 401, or 503 while there is no key at all."""

    def __init__(
        self,
        settings: AuthSettings,
        keys: KeyRing,
        clock: Clock,
        *,
        unit_primitives: Mapping[str, UnitPrimitive],
        trusted_proxies: Iterable[str] = (),
        failures: Counts | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """now: seconds that pass by themselves, as the event loop's do."""
        self._settings = settings
        # What lets requests pass unproven is said with each of them.
        self._keeps = not (settings.bypass_external or settings.bypass_with_header or settings.bypass_jwt_signature)
        self._keys = keys
        self._clock = clock
        self._old_names = read_old_names(unit_primitives)
        self._trusted = Networks(trusted_proxies)
        self._deny = DenyList()
        self._catalogue_epoch = 0
        self._verified: Bounded[bytes, _Verified] = Bounded(VERIFIED_ENTRIES)
        self._refused: Bounded[bytes, _Refused] = Bounded(REFUSED_ENTRIES)
        self._failures = failures or MinuteCounts(settings.failures_per_minute, clock)
        self._next = asyncio.Lock()
        self._in_line = 0
        self._now = now
        self._known_came_at = -GAP_S

    def set_deny_list(self, records: Iterable[DenyRecord]) -> None:
        """Swap the deny list in; tokens verified before are looked at again where it is another one."""
        deny = DenyList.of(records)
        if deny != self._deny:
            self._deny = deny
            self._catalogue_epoch += 1

    def set_unit_primitives(self, unit_primitives: Mapping[str, UnitPrimitive]) -> None:
        """Swap the old names in that the catalogue knows; likewise."""
        old_names = read_old_names(unit_primitives)
        if old_names != self._old_names:
            self._old_names = old_names
            self._catalogue_epoch += 1

    async def authenticate(self, headers: Headers, client: str, *, lenient: bool = False) -> Caller:
        """The caller of a request, its headers matched with the claims.

        client   the address that failures are counted for
        lenient  for vendors' SDKs: the token may come as their key does, and headers of ours may be absent
        """
        if self.bypasses(headers):
            return DEBUG_CALLER
        known = await self._verify(shown_token(headers, lenient=lenient), client)
        agrees = self.match_headers(known.caller, headers, lenient=lenient)
        if agrees and self._keeps:
            headers.kept[_KEPT, lenient] = known
        return known.caller

    def recognize(self, headers: Headers, *, lenient: bool) -> Caller | None:
        """As `authenticate`, where it has let the same headers pass before; None: it has not, or must look anew.

        The whole head is the same, byte for byte, so the token is; whether it is still good is asked each time.
        """
        known: _Verified | None = headers.kept.get((_KEPT, lenient))
        if known is None or known.epoch != self._epoch or self._clock.now() >= known.until:
            return None
        self._known_came_at = self._now()
        return known.caller

    def admits(self, headers: Headers, *, lenient: bool) -> bool:
        """Whether `authenticate` lets these headers pass, by a token that was verified before."""
        try:
            known = self._known(_digest(shown_token(headers, lenient=lenient).encode("utf-8", "surrogatepass")))
            if known is not None:
                self.match_headers(known.caller, headers, lenient=lenient)
        except Refusal:
            return False
        return known is not None

    def known_instance(self, token: bytes) -> str:
        """Who vouched for a token that was verified before; empty: nobody knows.

        Costs a hash and checks nothing else: good for taking turns, never for rights.
        """
        known = self._verified.get(_digest(token.strip()))
        return "" if known is None else known.caller.party

    def bypasses(self, headers: Headers) -> bool:
        """Whether the operator lets this request pass with all rights; said at critical level each time."""
        if self._settings.bypass_external:
            logger.critical("AIGW_AUTH__BYPASS_EXTERNAL lets a request pass unauthenticated")
            return True
        if self._settings.bypass_with_header and headers.text(b"bypass-auth") == "true":
            logger.critical("AIGW_AUTH__BYPASS_EXTERNAL_WITH_HEADER lets a request pass unauthenticated")
            return True
        return False

    async def verify(self, token: str, client: str) -> Caller:
        """The caller that a token alone speaks for."""
        return (await self._verify(token, client)).caller

    async def _verify(self, token: str, client: str) -> _Verified:
        if self._settings.bypass_jwt_signature:
            logger.critical("AIGW_AUTH__BYPASS_JWT_SIGNATURE lets a token pass with its signature unchecked")
        raw = token.encode("utf-8", "surrogatepass")
        # The whole token is the key: tokens that share a beginning are strangers.
        digest = _digest(raw)
        known = self._known(digest)
        if known is None:
            return await self._verify_anew(raw.strip(b" \t"), digest, client)
        self._known_came_at = self._now()
        return known

    def match_headers(self, caller: Caller, headers: Headers, *, lenient: bool = False) -> bool:
        """Refuse headers that disagree with the claims; `lenient` lets absent ones pass (dialect routes).

        True where they agree in all; where not, that is to be said each time.
        """
        if caller.is_debug:
            return True
        if headers.has_repeats:
            refuse_repeated(headers)
        match_claim(caller.realm, headers, b"x-gitlab-realm", "X-Gitlab-Realm", lenient)
        instance_id = caller.claims.get("gitlab_instance_id")
        if instance_id:
            match_claim(str(instance_id), headers, b"x-gitlab-instance-id", "X-Gitlab-Instance-Id", lenient)
        if caller.is_user:
            match_claim(caller.subject, headers, b"x-gitlab-global-user-id", "X-Gitlab-Global-User-Id", lenient)
        elif caller.subject != instance_id:
            match_claim(caller.subject, headers, b"x-gitlab-instance-id", "X-Gitlab-Instance-Id", lenient)
        seats = caller.claims.get("duo_seat_count")
        disagrees = bool(seats) and headers.get(b"x-gitlab-duo-seat-count") != str(seats)
        if disagrees:
            logger.info("the header X-Gitlab-Duo-Seat-Count disagrees with the token; the request passes")
        if self._deny.rows:  # the token passed; whom it speaks for stands in the headers
            instance, user = headers.text(b"x-gitlab-instance-id"), headers.text(b"x-gitlab-global-user-id")
            if self._deny.holds(caller, instance_header=instance, user_header=user):
                raise _refusal("token_revoked", layer="user_token" if caller.is_user else None)
        return not disagrees

    @property
    def _epoch(self) -> int:
        # Both only grow, so their sum stays the same only while neither changes.
        return self._keys.epoch + self._catalogue_epoch

    def _known(self, digest: bytes) -> _Verified | None:
        known = self._verified.get(digest)
        if known is not None and known.epoch == self._epoch and self._clock.now() < known.until:
            return known
        return None

    async def _verify_anew(self, raw: bytes, digest: bytes, client: str) -> _Verified:
        if self._in_line >= MOST_IN_LINE:
            self._refuse_at_once(digest, client)  # in a flood, those that cost nothing do not hold up the others
        await self._turn()
        # Meanwhile the burst it came in may have used the bound up, or brought the same token.
        self._refuse_at_once(digest, client)
        if (known := self._known(digest)) is not None:
            return known
        claims: Claims | None = None
        try:
            jws = jose.parse(raw)
            claims = read_claims(jws.payload)
            await self._check(jws, claims)
            caller = caller_of(claims, self._settings.service_name, self._old_names)
            if self._deny.holds(caller):
                raise BadToken("token_revoked")
        except BadToken as fault:
            layer: Layer | None = "user_token" if claims and claims.issuer == self._settings.service_name else None
            until = self._clock.monotonic() + self._memory_s(fault, claims)
            self._refused.put(digest, _Refused(fault.code, fault.detail, layer, until, self._epoch))
            self._verified.drop(digest)
            self._count_failure(client)
            raise _refusal(fault.code, fault.detail, layer) from None
        known = _Verified(caller, claims.expires_at + self._settings.leeway_s, self._epoch)
        self._verified.put(digest, known)
        return known

    async def _turn(self) -> None:
        """Returns for one unknown token in a turn of the event loop, in a gap that known ones leave."""
        until = self._now() + PATIENCE_S
        self._in_line += 1
        try:
            async with self._next:
                await asyncio.sleep(0)  # whoever else is ready goes first
                while (left_s := min(until, self._known_came_at + GAP_S) - self._now()) > 0:  # noqa: ASYNC110  may come again
                    await asyncio.sleep(left_s)
        finally:
            self._in_line -= 1

    async def _check(self, jws: Jws, claims: Claims) -> None:
        # Cheap checks first: an expired or misdirected token never costs cryptography.
        if jws.algorithm != "RS256":
            raise BadToken("token_algorithm", f"alg is {jws.algorithm[:20]}")
        fault = next(faults(claims, self._settings, self._clock.now()), None)
        if fault is not None:
            # Not itself: a frame that names what it raises is freed by the collector only, and that stops the loop.
            raise BadToken(fault.code, fault.detail)
        if self._settings.bypass_jwt_signature:
            return
        if await self._is_signed(jws, claims.issuer):
            return
        if await self._keys.refetch(claims.issuer) and await self._is_signed(jws, claims.issuer):
            return
        if not self._keys.has_keys:
            raise Refusal(503, "keys_unavailable", "No keys to verify tokens with are available", member="error")
        raise BadToken("token_signature", "no key of this issuer verifies the signature")

    async def _is_signed(self, jws: Jws, issuer: str) -> bool:
        candidates = self._keys.candidates(issuer, jws.kid)
        epoch = self._keys.epoch
        for number, key in enumerate(candidates):
            if number:
                await self._turn()
                if self._keys.epoch != epoch:
                    # A key that was taken back meanwhile must not verify, for that would be remembered.
                    return await self._is_signed(jws, issuer)
            if jose.is_signed_by(jws, key):
                return True
        return False

    def _memory_s(self, fault: BadToken, claims: Claims | None) -> float:
        """How long a refusal can be trusted to stay the same."""
        if claims is None:
            return REFUSAL_MEMORY_S
        if fault.code == "token_not_yet_valid":
            return min(REFUSAL_MEMORY_S, claims.not_before - self._settings.leeway_s - self._clock.now())
        if fault.code == "token_signature":
            refetch_in_s = self._keys.refetch_in_s(claims.issuer)
            return REFUSAL_MEMORY_S if refetch_in_s is None else min(REFUSAL_MEMORY_S, refetch_in_s)
        return REFUSAL_MEMORY_S

    def _refuse_at_once(self, digest: bytes, client: str) -> None:
        remembered = self._refused.get(digest)
        if remembered and remembered.epoch == self._epoch and self._clock.monotonic() < remembered.until:
            # A token that only wants its key comes with each request of a busy instance until that key is fetched.
            if remembered.code != "token_signature":
                self._count_failure(client)
            raise _refusal(remembered.code, remembered.detail, remembered.layer)
        # One that was good is looked at again where keys or deny list have changed, whoever else comes from there.
        if self._verified.get(digest) is None and self._failures.wait_s(holder(client)):
            raise _refusal("auth_failures_exceeded", layer="client")

    def _count_failure(self, client: str) -> None:
        if not self._settings.failures_per_minute or self._trusted.hold(client):
            return
        if self._failures.count(holder(client)) == self._settings.failures_per_minute:
            logger.warning(
                "an address reached AIGW_AUTH__FAILURES_PER_MINUTE; its unknown tokens are refused for a minute",
                extra={"client_ip": client},
            )


def _digest(token: bytes) -> bytes:
    """SHA-256, in pieces: from 2 KiB on hashlib lets go of the interpreter, and getting it back costs far more."""
    if len(token) < _PIECE_BYTES:
        return hashlib.sha256(token).digest()
    digest = hashlib.sha256(token[:_PIECE_BYTES])
    for start in range(_PIECE_BYTES, len(token), _PIECE_BYTES):
        digest.update(token[start : start + _PIECE_BYTES])
    return digest.digest()


def _refusal(code: str, detail: str = "", layer: Layer | None = None) -> Refusal:
    return Refusal(401, code, FORBIDDEN, member="error", missing=detail or None, layer=layer)
