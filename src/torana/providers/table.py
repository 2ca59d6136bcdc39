"""Every provider with a file of its own, by name: the one list that the server and the commands call models with."""

from torana.providers.anthropic import Anthropic
from torana.providers.openai import OpenAI
from torana.providers.provider import Provider


def provider_table() -> dict[str, Provider]:
    return {provider.name: provider for provider in (Anthropic(), OpenAI())}
