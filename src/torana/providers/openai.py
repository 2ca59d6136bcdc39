"""OpenAI and everything that speaks like it: chat completions, or text completions where marked.

A client's own server is called at `<endpoint>/chat/completions`: its endpoint already holds the /v1.
"""

from collections.abc import Mapping

from torana.dialects.chat_completions import CHAT_COMPLETIONS
from torana.dialects.dialect import Dialect
from torana.dialects.text_completions import TEXT_COMPLETIONS
from torana.providers.provider import PLACEHOLDER_KEY, Deployment, join_url
from torana.transport import WireRequest


class OpenAI:
    name = "openai"

    def dialect_for(self, deployment: Deployment) -> Dialect:
        return TEXT_COMPLETIONS if deployment.as_text_completion else CHAT_COMPLETIONS

    async def prepare(
        self, deployment: Deployment, path: str, body: bytes, headers: Mapping[str, str], *, stream: bool
    ) -> WireRequest:
        key = deployment.secret.reveal() or PLACEHOLDER_KEY
        if deployment.is_client_given:
            url = deployment.base_url + path.removeprefix("/v1")
        else:
            url = join_url(deployment.base_url, path)
        return WireRequest(
            url=url,
            headers={**headers, "Authorization": f"Bearer {key}", **deployment.extra_headers},
            body=body,
            is_client_given=deployment.is_client_given,
        )
