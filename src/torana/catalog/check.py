"""Cross checks: every name that a record mentions exists. Templates are checked by the prompts room."""

from collections.abc import Container, Iterable

from torana.catalog.snapshot import Catalogue


def check_catalogue(catalogue: Catalogue) -> list[str]:
    """One line `file:line: what, expected` for each name that leads nowhere."""
    found = _Findings(catalogue)
    models, providers = catalogue.models, catalogue.providers
    answering = {*models, *catalogue.aliases}
    for model in models.values():
        found.need(f"models {model.name}", "provider", [each.provider for each in model.deployments], providers)
        if not model.deployments:
            found.add(f"models {model.name}", "has no deployments", "expected at least one")
    for alias in catalogue.aliases.values():
        found.need(f"aliases {alias.name}", "model", alias.models, models)
        if not alias.models:
            found.add(f"aliases {alias.name}", "has no models", "expected at least one")
    for client_name in catalogue.client_names.values():
        found.need(f"client_names {client_name.name}", "alias or model", [client_name.model], answering)
    for setting in catalogue.feature_settings.values():
        key = f"feature_settings {setting.name}"
        found.need(key, "alias or model", [setting.default], answering)
        found.need(key, "model", setting.selectable, models)
        found.need(key, "unit primitive", setting.unit_primitives, catalogue.unit_primitives)
    paths: dict[str, str] = {}
    for feature in catalogue.features.values():
        key = f"features {feature.name}"
        found.need(key, "unit primitive", [feature.unit_primitive], catalogue.unit_primitives)
        found.need(key, "prompt", [feature.prompt_id], catalogue.prompts)
        found.need(key, "alias or model", [feature.model], answering)
        if feature.feature_setting:
            found.need(key, "feature setting", [feature.feature_setting], catalogue.feature_settings)
        other = paths.setdefault(feature.path, feature.name)
        if other != feature.name:
            found.add(key, f"path `{feature.path}` is that of `{other}`", "expected a path of its own")
    for denial in catalogue.deny.values():
        if not (denial.instance or denial.user or denial.token_id):
            found.add(f"deny {denial.name}", "denies nobody", "expected `instance`, `user` or `token_id`")
    return found.problems


class _Findings:
    def __init__(self, catalogue: Catalogue) -> None:
        self.places = catalogue.places
        self.problems: list[str] = []

    def need(self, key: str, what: str, names: Iterable[str], known: Container[str]) -> None:
        for name in names:
            if name not in known:
                self.add(key, f"unknown {what} `{name}`", f"expected the name of a known {what}")

    def add(self, key: str, wrong: str, expected: str) -> None:
        self.problems.append(f"{self.places[key]}: {key.partition(' ')[2]}: {wrong}, {expected}")
