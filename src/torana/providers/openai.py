"""OpenAI and everything that speaks like it: chat completions or responses, or text completions where marked.

A client's own server is called at `<endpoint>/chat/completions`: its endpoint already holds the /v1.
"""

from collections.abc import Mapping

from torana.dialects.dialect import Dialect
from torana.dialects.embedding_dialect import EmbeddingDialect
from torana.dialects.embeddings import OPENAI_EMBEDDINGS
from torana.dialects.manners import chat_completions_of, text_completions_of
from torana.dialects.responses import RESPONSES
from torana.providers.provider import Deployment, add_own, greet, join_url
from torana.transport import WireRequest

_ASKED = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/models": "models",
}
"""A dialect's path → what a row of providers.yml calls it."""


class OpenAI:
    name = "openai"

    def dialect_for(self, deployment: Deployment) -> Dialect:
        return dialect_of(deployment)

    def embeddings_for(self, deployment: Deployment) -> EmbeddingDialect | None:
        return OPENAI_EMBEDDINGS

    async def prepare(
        self, deployment: Deployment, path: str, body: bytes, headers: Mapping[str, str], *, stream: bool
    ) -> WireRequest:
        if deployment.is_client_given:
            url = deployment.base_url + path.removeprefix("/v1")
        elif own_path := deployment.paths.get(_ASKED.get(path, "")):
            url = deployment.base_url.rstrip("/") + own_path
        else:
            url = join_url(deployment.base_url, path)
        return WireRequest(
            url=url,
            headers=add_own({**headers, **greet(deployment, "bearer")}, deployment),
            body=body,
            is_client_given=deployment.is_client_given,
        )


def dialect_of(deployment: Deployment) -> Dialect:
    if deployment.dialect == RESPONSES.name and not deployment.as_text_completion:
        return RESPONSES
    speak = text_completions_of if deployment.as_text_completion else chat_completions_of
    return speak(deployment.quirks)
