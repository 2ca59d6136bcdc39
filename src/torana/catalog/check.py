"""Cross checks: every name that a record mentions exists. Templates are checked by the prompts room."""

from torana.catalog.check_abilities import check_abilities
from torana.catalog.check_models import check_models
from torana.catalog.check_tokenizers import check_tokenizers
from torana.catalog.findings import Findings
from torana.catalog.sink_file import target_of
from torana.catalog.snapshot import Catalogue


def check_catalogue(catalogue: Catalogue) -> list[str]:
    """One line `file:line: what, expected` for each name that leads nowhere."""
    found = Findings(catalogue)
    models, providers = catalogue.models, catalogue.providers
    answering = {*models, *catalogue.aliases}
    check_models(found, models, providers)
    check_tokenizers(found, catalogue)
    for alias in catalogue.aliases.values():
        found.need(f"aliases {alias.name}", "model", alias.models, models)
        if not alias.models:
            found.add(f"aliases {alias.name}", "has no models", "expected at least one")
    for client_name in catalogue.client_names.values():
        found.need(f"client_names {client_name.name}", "alias or model", [client_name.model], answering)
    for setting in catalogue.feature_settings.values():
        key = f"feature_settings {setting.name}"
        found.need(key, "alias or model", [setting.default], answering)
        found.need(key, "model", (*setting.selectable, *setting.dev), models)
        for chosen in (*setting.tags.values(), *setting.size_preference.values()):
            found.need(key, "model", (chosen,) if isinstance(chosen, str) else chosen, models)
        found.need(key, "unit primitive", setting.unit_primitives, catalogue.unit_primitives)
    for rule in catalogue.residency.values():
        if not rule.regions:
            found.add(f"residency {rule.name}", "allows no region", "expected at least one, such as `eu-*`")
        if rule.instance and rule.realm:
            found.add(f"residency {rule.name}", "names an instance and a realm", "expected one of them, or neither")
    paths: dict[str, str] = {}
    for feature in catalogue.features.values():
        key = f"features {feature.name}"
        found.need(key, "unit primitive", [feature.unit_primitive], catalogue.unit_primitives, "unit_primitive")
        found.need(key, "prompt", [feature.prompt_id], catalogue.prompts, "prompt")
        found.need(key, "alias or model", [feature.model], answering, "model")
        if feature.feature_setting:
            settings = catalogue.feature_settings
            found.need(key, "feature setting", [feature.feature_setting], settings, "feature_setting")
        other = paths.setdefault(feature.path, feature.name)
        if other != feature.name:
            found.add(key, f"path `{feature.path}` is that of `{other}`", "expected a path of its own", "path")
    names = {*models, *catalogue.families, *(each.model for model in models.values() for each in model.deployments)}
    for limit in catalogue.limits.values():
        key, match = f"limits {limit.name}", limit.match
        found.need(key, "unit primitive", match.unit_primitives, catalogue.unit_primitives)
        found.need(key, "feature or prompt", match.features, {*catalogue.features, *catalogue.prompts})
        found.need(key, "model", match.models, names)
        found.need(key, "provider", match.providers, providers)
    targets: dict[object, str] = {}
    for sink in catalogue.sinks.values():
        member, target = target_of(sink)
        other = targets.setdefault(target, sink.name) if sink.enabled else sink.name
        if other != sink.name:
            expected = f"expected another `{member}`, or `enabled: false` of one of them"
            found.add(f"sinks {sink.name}", f"writes where `{other}` does", expected)
    for denial in catalogue.deny.values():
        if not (denial.instance or denial.user or denial.token_id):
            found.add(f"deny {denial.name}", "denies nobody", "expected `instance`, `user` or `token_id`")
    if not found.problems:
        # They follow names from record to record, which all have to exist.
        check_abilities(found, catalogue)
    return found.problems
