"""The values that labels of metrics may have, from the catalogue and our own lists."""

from torana.catalog.load import Catalogue
from torana.code.languages import EDITOR_IDS, EXTENSIONS, LANGUAGES
from torana.telemetry.metrics import Known

CLIENTS = frozenset({"gitlab-extension", "gitlab-lsp", "gitlab-web", "duo-cli"})
"""What GitLab's own clients call themselves."""


def known_labels(catalogue: Catalogue) -> Known:
    """The catalogue's own names; every other value that a client chooses is shown as `other`."""
    records = catalogue.models.values()
    return Known(
        engines=frozenset(catalogue.providers),
        models=frozenset(item.model for record in records for item in record.deployments if item.model),
        unit_primitives=frozenset(catalogue.unit_primitives),
        feature_categories=frozenset(record.feature_category for record in catalogue.unit_primitives.values()),
        languages=LANGUAGES,
        extensions=EXTENSIONS,
        editor_languages=EDITOR_IDS,
        clients=CLIENTS,
    )
