"""Anthropic: the messages dialect. Source: Anthropic API reference, "Messages" and "Errors"."""

from collections.abc import Mapping

from torana.dialects.dialect import Dialect
from torana.dialects.embedding_dialect import EmbeddingDialect
from torana.dialects.messages import MESSAGES
from torana.providers.provider import Deployment, add_own, greet, join_url
from torana.transport import WireRequest

API_VERSION = "2023-06-01"


class Anthropic:
    name = "anthropic"

    def dialect_for(self, deployment: Deployment) -> Dialect:
        return MESSAGES

    def embeddings_for(self, deployment: Deployment) -> EmbeddingDialect | None:
        return None

    async def prepare(
        self, deployment: Deployment, path: str, body: bytes, headers: Mapping[str, str], *, stream: bool
    ) -> WireRequest:
        greeting = {"anthropic-version": API_VERSION, **headers, **greet(deployment, "x-api-key")}
        asked, mark, query = path.partition("?")
        if asked == MESSAGES.path and (own_path := deployment.paths.get("chat")):
            url = deployment.base_url.rstrip("/") + own_path + mark + query
        else:
            url = join_url(deployment.base_url, path)
        return WireRequest(
            url=url,
            headers=add_own(greeting, deployment),
            body=body,
            is_client_given=deployment.is_client_given,
        )
