"""python -m bench.access: what a token costs us in CPU, beside the library alone. `--json` for machines.

Microseconds of thread CPU per call, the median of several rounds; absolute figures move with the machine.
"""

import argparse
import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from torana.access.keys import KeyRing
from torana.access.local_keys import LocalKeys
from torana.access.tokens import Verifier
from torana.auth_settings import AuthSettings
from torana.clock import Clock
from torana.errors import Refusal
from torana.headers import Headers
from torana.settings import TransportSettings
from torana.transport import Transport

SERVICE = "gitlab-ai-gateway"
ROUNDS = 7
BUDGET_US = {"cached": 5.0, "uncached beyond the library": 150.0}


def make_token(key: rsa.RSAPrivateKey, number: int = 0) -> str:
    now = int(time.time())
    claims = {
        "iss": "https://instance.example", "sub": "instance-1", "aud": SERVICE, "exp": now + 3600, "nbf": now - 5,
        "iat": now, "jti": f"token-{number}", "gitlab_realm": "self-managed",
        "scopes": ["complete_code", "generate_code", "duo_chat"],
    }  # fmt: skip
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": "local"})


def headers_with(token: str) -> Headers:
    return Headers.of(
        [
            ("authorization", f"Bearer {token}"),
            ("x-gitlab-authentication-type", "oidc"),
            ("x-gitlab-realm", "self-managed"),
            ("x-gitlab-instance-id", "instance-1"),
            ("x-gitlab-global-user-id", "user-1"),
        ]
    )


def make_verifier(key: rsa.RSAPrivateKey, transport: Transport, failures_per_minute: int = 0) -> Verifier:
    settings = AuthSettings(gitlab_url="", customer_portal_url="", failures_per_minute=failures_per_minute)
    clock = Clock()
    return Verifier(settings, KeyRing(settings, LocalKeys(SERVICE, key), transport, clock), clock, unit_primitives={})


async def cpu_us(call: Callable[[int], Awaitable[Any]], calls: int, first: int = 0) -> float:
    """`call(n)` for n from `first` on."""
    begun = time.thread_time()
    for number in range(first, first + calls):
        await call(number)
    return (time.thread_time() - begun) / calls * 1e6


async def measure() -> dict[str, float]:
    """Median microseconds by case."""
    key, stranger = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    transport = Transport(TransportSettings())
    one = make_token(key)
    good = [make_token(key, number) for number in range(200)]
    bad = [headers_with(make_token(stranger, number)) for number in range(200)]
    tampered = [headers_with(token[:-8] + "AAAAAAAA") for token in good]
    cached = headers_with(one)
    uncached = [headers_with(token) for token in good]
    public = key.public_key()
    found: dict[str, list[float]] = {}

    async def refused(verifier: Verifier, headers: Headers) -> None:
        try:
            await verifier.authenticate(headers, "203.0.113.1")
        except Refusal:
            return
        raise AssertionError("a bad token passed")

    async def library(number: int) -> None:
        jwt.decode(good[number], public, algorithms=["RS256"], audience=SERVICE)

    for _ in range(ROUNDS):
        warm, fresh, open_to_all = (make_verifier(key, transport) for _ in range(3))
        bounded = make_verifier(key, transport, failures_per_minute=1)
        await warm.authenticate(cached, "")
        await refused(bounded, bad[0])
        rows = {
            "cached": await cpu_us(lambda _, v=warm: v.authenticate(cached, ""), 20_000),
            "uncached": await cpu_us(lambda n, v=fresh: v.authenticate(uncached[n], ""), 200),
            "library": await cpu_us(library, 200),
            "bad signature": await cpu_us(lambda n, v=open_to_all: refused(v, bad[n]), 200),
            "bad, remembered": await cpu_us(lambda n, v=open_to_all: refused(v, bad[n]), 200),
            "bad, over the bound": await cpu_us(lambda n, v=bounded: refused(v, tampered[n]), 200),
        }
        for name, value in rows.items():
            found.setdefault(name, []).append(value)
    await transport.aclose()
    result = {name: median(values) for name, values in found.items()}
    result["uncached beyond the library"] = result["uncached"] - result["library"]
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    logging.getLogger("torana.access").setLevel(logging.ERROR)  # the bound on failures is reached on purpose
    result = asyncio.run(measure())
    if asked.json:
        print(json.dumps({name: round(value, 2) for name, value in result.items()}))
    else:
        for name, value in result.items():
            budget = f"  at most {BUDGET_US[name]:g}" if name in BUDGET_US else ""
            print(f"{name:<30} {value:8.2f} us{budget}")
    return 0 if all(result[name] <= budget for name, budget in BUDGET_US.items()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
