"""The Gemini API: the generate content dialect behind a key.

Quirks: the model and whether the answer streams stand in the path; a bad key is told with 400 (dialects/
generate_content_errors.py). Source: Gemini API reference, "generateContent" and "streamGenerateContent"; "Using Gemini
API keys".
"""

from collections.abc import Mapping
from urllib.parse import quote

from torana.dialects.dialect import Dialect
from torana.dialects.embedding_dialect import EmbeddingDialect
from torana.dialects.gemini_embeddings import GEMINI_EMBEDDINGS
from torana.dialects.generate_content import GENERATE_CONTENT
from torana.providers.provider import Deployment, add_own, greet
from torana.transport import WireRequest

VERSION = "/v1beta"
"""JSON schemas and thinking levels are not in v1."""


class Gemini:
    name = "gemini"

    def dialect_for(self, deployment: Deployment) -> Dialect:
        return GENERATE_CONTENT

    def embeddings_for(self, deployment: Deployment) -> EmbeddingDialect | None:
        return GEMINI_EMBEDDINGS

    async def prepare(
        self, deployment: Deployment, path: str, body: bytes, headers: Mapping[str, str], *, stream: bool
    ) -> WireRequest:
        base = deployment.base_url.rstrip("/").removesuffix(VERSION)
        if path == GEMINI_EMBEDDINGS.path:
            action = "batchEmbedContents"
        else:
            action = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return WireRequest(
            url=f"{base}{VERSION}/models/{quote(deployment.model, safe='')}:{action}",
            headers=add_own({**headers, **greet(deployment, "x-goog-api-key")}, deployment),
            body=body,
            is_client_given=deployment.is_client_given,
        )
