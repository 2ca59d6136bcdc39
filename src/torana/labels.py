"""The values that labels of metrics may have, from the catalogue and our own lists."""

from torana.catalog.load import Catalogue
from torana.code.languages import EDITOR_IDS, EXTENSIONS, LANGUAGES
from torana.settings import ProviderSettings
from torana.telemetry.metrics import Known

CLIENTS = frozenset({"gitlab-extension", "gitlab-lsp", "gitlab-web", "duo-cli"})
"""What GitLab's own clients call themselves."""


def known_labels(catalogue: Catalogue, settings: ProviderSettings | None = None) -> Known:
    """The names of the catalogue and of the operator's settings; whatever else a client chooses is shown as `other`."""
    settings = settings or ProviderSettings()
    listed = (item.model for record in catalogue.models.values() for item in record.deployments)
    limited = (model for models in settings.model_engine_limits.values() for model in models)
    return Known(
        engines=frozenset((*catalogue.providers, *settings.model_engine_limits)),
        models=frozenset((*listed, *limited, settings.openai_model)) - {""},
        unit_primitives=frozenset(catalogue.unit_primitives),
        feature_categories=frozenset(record.feature_category for record in catalogue.unit_primitives.values()),
        languages=LANGUAGES,
        extensions=EXTENSIONS,
        editor_languages=EDITOR_IDS,
        clients=CLIENTS,
    )
