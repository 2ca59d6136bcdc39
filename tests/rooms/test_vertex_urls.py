"""Vertex AI: where each region is asked."""

import pytest

from torana.providers.vertex_ai import host_of


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-central1", "https://us-central1-aiplatform.googleapis.com"),
        ("global", "https://aiplatform.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
        ("us", "https://aiplatform.us.rep.googleapis.com"),
    ],
)
def test_a_region_has_a_host_of_its_own_or_one_with_others(region: str, host: str) -> None:
    assert host_of(region) == host
