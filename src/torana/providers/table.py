"""Every provider with a file of its own, by name: the one list that the server and the commands call models with."""

from torana.clock import Clock
from torana.providers.anthropic import Anthropic
from torana.providers.azure import AzureOpenAI
from torana.providers.bedrock import Bedrock
from torana.providers.openai import OpenAI
from torana.providers.provider import Provider
from torana.settings import ProviderSettings


def provider_table(settings: ProviderSettings, clock: Clock) -> dict[str, Provider]:
    providers: tuple[Provider, ...] = (
        Anthropic(),
        OpenAI(),
        AzureOpenAI(settings, clock),
        Bedrock(settings, clock),
    )
    return {provider.name: provider for provider in providers}
