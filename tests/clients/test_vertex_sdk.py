"""The official client of Claude on Vertex AI, through the pass-through: a gateway's token instead of Google's."""

from collections.abc import AsyncIterator

import pytest
from anthropic import AsyncAnthropicVertex
from tests.conftest import StartGateway
from tests.support.gateway import RunningGateway, gitlab_headers
from tests.support.google import PROJECT, FakeGoogle
from tests.support.provider import ScriptedProvider

PROXY = "ai_gateway_model_provider_proxy"


@pytest.fixture
async def gateway(start_gateway: StartGateway, provider: ScriptedProvider) -> AsyncIterator[RunningGateway]:
    async with FakeGoogle() as google:
        yield await start_gateway(
            env={
                "AIGW_GOOGLE_CLOUD_PLATFORM__SERVICE_ACCOUNT_JSON_KEY": google.key(),
                "VERTEX_BASE_URL": provider.url,
            }
        )


async def test_the_client_streams_from_our_project(gateway: RunningGateway) -> None:
    token = gateway.user_token(unit_primitives=[PROXY])
    headers = gitlab_headers(token) | {"X-Gitlab-Unit-Primitive": PROXY}
    del headers["Authorization"], headers["User-Agent"]
    async with (
        AsyncAnthropicVertex(
            region="us-east5",
            project_id="theirs",
            access_token=token,
            base_url=f"{gateway.url}/v1/proxy/vertex-ai/v1",
            default_headers=headers,
            max_retries=0,
        ) as client,
        client.messages.stream(
            model="claude-sonnet-4-6", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        ) as stream,
    ):
        message = await stream.get_final_message()

    assert message.content[0].type == "text"
    assert message.content[0].text == "Hello from the scripted provider."
    assert (message.usage.input_tokens, message.usage.output_tokens) == (25, 7)
    (sent,) = gateway.provider.requests
    place = f"/v1/projects/{PROJECT}/locations/us-central1"
    assert sent.path == f"{place}/publishers/anthropic/models/claude-sonnet-4-6:streamRawPredict"
    assert sent.header("authorization") == "Bearer ya29.token-1"
