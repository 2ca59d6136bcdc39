"""Azure OpenAI: every address that portals, documents and administrators give leads to the right URL."""

import pytest

from torana.providers.azure import deployment_url

CHAT = "/chat/completions"
BASE = "https://acme.openai.azure.com"
OLD = f"{BASE}/openai/deployments/my%20gpt/chat/completions?api-version="


@pytest.mark.parametrize(
    ("base_url", "version", "url"),
    [
        (BASE, "2024-10-21", f"{OLD}2024-10-21"),
        (f"{BASE}/", "2025-01-01-preview", f"{OLD}2025-01-01-preview"),
        (f"{BASE}/openai", "2024-10-21", f"{OLD}2024-10-21"),
        (f"{BASE}?api-version=2024-06-01", "2024-10-21", f"{OLD}2024-06-01"),
        (f"{BASE}/openai/deployments/x", "", f"{BASE}/openai/deployments/x/chat/completions?api-version=2024-10-21"),
        (
            f"{BASE}/openai/deployments/x/chat/completions?api-version=2025-01-01-preview",
            "2024-10-21",
            f"{BASE}/openai/deployments/x/chat/completions?api-version=2025-01-01-preview",
        ),
        (BASE, "", f"{BASE}/openai/v1/chat/completions"),
        (BASE, "v1", f"{BASE}/openai/v1/chat/completions"),
        (BASE, "preview", f"{BASE}/openai/v1/chat/completions?api-version=preview"),
        (f"{BASE}/openai/v1/", "", f"{BASE}/openai/v1/chat/completions"),
        (f"{BASE}/openai/v1", "2024-10-21", f"{BASE}/openai/v1/chat/completions"),
        ("http://proxy:8000/azure/openai/v1", "", "http://proxy:8000/azure/openai/v1/chat/completions"),
        (
            "http://proxy:8000/azure",
            "2024-10-21",
            "http://proxy:8000/azure/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_every_form_of_address_leads_to_the_deployment(base_url: str, version: str, url: str) -> None:
    assert deployment_url(base_url, "my gpt", CHAT, version) == url


def test_a_deployments_name_cannot_lead_elsewhere() -> None:
    url = deployment_url(BASE, "../../evil?x=", "/completions", "2024-10-21")

    assert url == f"{BASE}/openai/deployments/..%2F..%2Fevil%3Fx%3D/completions?api-version=2024-10-21"
