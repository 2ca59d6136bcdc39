"""AWS Bedrock: the converse dialect and vectors, greeted with a bearer token or with AWS's own signature.

Source: Amazon Bedrock API reference, "Converse", "InvokeModel" and "API keys"; AWS General Reference, "Signature
Version 4".
"""

import asyncio
from collections.abc import Mapping
from urllib.parse import quote

from torana.clock import Clock
from torana.dialects.bedrock_embeddings import PATH, embeddings_of
from torana.dialects.converse import CONVERSE
from torana.dialects.dialect import Dialect
from torana.dialects.embedding_dialect import EmbeddingDialect
from torana.errors import NoCredentials, ProviderError
from torana.providers.aws_signing import fetch_signer
from torana.providers.provider import Deployment, add_own, greet
from torana.providers.refreshing import Refreshing
from torana.settings import ProviderSettings
from torana.transport import WireRequest

LARGE_BODY_BYTES = 1024 * 1024
"""From here on the body's digest is worth a thread: it takes milliseconds."""

NO_REGION = "no region for Bedrock: set AWS_REGION_NAME, or a region at the deployment"

_ACTIONS = {(CONVERSE.path, False): "converse", (CONVERSE.path, True): "converse-stream", (PATH, False): "invoke"}
_DOMAINS = {"cn-": "amazonaws.com.cn", "eusc-": "amazonaws.eu"}


class Bedrock:
    name = "bedrock"

    def __init__(self, settings: ProviderSettings, clock: Clock) -> None:
        self._settings = settings
        self._signer = Refreshing("AWS credentials", lambda: fetch_signer(settings, clock), clock)

    def dialect_for(self, deployment: Deployment) -> Dialect:
        return CONVERSE

    def embeddings_for(self, deployment: Deployment) -> EmbeddingDialect | None:
        return embeddings_of(deployment.model)

    async def prepare(
        self, deployment: Deployment, path: str, body: bytes, headers: Mapping[str, str], *, stream: bool
    ) -> WireRequest:
        """`path` tells what is asked; the model and the kind of answer make Bedrock's own."""
        action = _ACTIONS.get((path, stream))
        if action is None:
            raise ProviderError(f"Bedrock cannot be asked {path}", deployment.name)
        is_signed = deployment.auth in ("", "aws")
        region = deployment.region or self._settings.aws_region
        if not region and (is_signed or not deployment.base_url):
            raise NoCredentials(NO_REGION, deployment.name)
        base = deployment.base_url.rstrip("/") or f"https://bedrock-runtime.{region}.{_domain(region)}"
        url = f"{base}/model/{quote(deployment.model, safe='')}/{action}"
        token = deployment.secret or self._settings.aws_bearer_token
        if not is_signed:
            greeting = greet(deployment, "bearer")
        elif token:
            greeting = {"Authorization": f"Bearer {token.reveal()}"}
        else:
            signer = await self._signer.current()
            content_type = headers.get("Content-Type", "application/json")
            if len(body) >= LARGE_BODY_BYTES:
                greeting = await asyncio.to_thread(signer.sign, url, body, content_type, region)
            else:
                greeting = signer.sign(url, body, content_type, region)
        return WireRequest(url=url, headers=add_own({**headers, **greeting}, deployment), body=body)


def _domain(region: str) -> str:
    return next((domain for prefix, domain in _DOMAINS.items() if region.startswith(prefix)), "amazonaws.com")
