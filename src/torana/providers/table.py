"""Every provider with a file of its own, by name: the one list that the server and the commands call models with."""

from torana.clock import Clock
from torana.providers.anthropic import Anthropic
from torana.providers.azure import AzureOpenAI
from torana.providers.bedrock import Bedrock
from torana.providers.gemini import Gemini
from torana.providers.google_tokens import GoogleTokens
from torana.providers.openai import OpenAI
from torana.providers.provider import Provider
from torana.providers.vertex_ai import VertexAI
from torana.settings import ProviderSettings
from torana.transport import Transport


def provider_table(settings: ProviderSettings, transport: Transport, clock: Clock) -> dict[str, Provider]:
    """`transport` and `clock` are for those whose credentials are fetched."""
    google = settings.google
    providers: tuple[Provider, ...] = (
        Anthropic(),
        OpenAI(),
        AzureOpenAI(settings, clock),
        Bedrock(settings, clock),
        Gemini(),
        VertexAI(google, GoogleTokens(google, transport, clock)),
    )
    return {provider.name: provider for provider in providers}
