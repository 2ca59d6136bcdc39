"""Do the models that features lead to serve, and can they do what is asked of them?

The rule: a feature is refused where any model that it can be answered by, without its caller naming one, lacks an
ability that it asks for. These are the feature's own `model`, its feature setting's default and the models that
setting offers by name; through aliases all of their models, with or without credentials, for credentials come and
go; and whoever succeeds a deprecated one. A model that a caller names is looked at when it is named.
"""

from collections.abc import Iterator, Mapping

from torana.catalog.findings import Findings
from torana.catalog.model_records import ModelRecord
from torana.catalog.records import FeatureRecord
from torana.catalog.snapshot import Catalogue

IN_USE = ("production", "deprecated")
"""Stages of models that defaults and menus lead to."""


def check_abilities(found: Findings, catalogue: Catalogue) -> None:
    """Called for a catalogue whose names all exist."""
    for alias in catalogue.aliases.values():
        if not any(catalogue.models[name].stage in IN_USE for name in alias.models):
            found.add(f"aliases {alias.name}", "none of its models is in use", "expected one in stage production")
    for setting in catalogue.feature_settings.values():
        _need_stage(found, f"feature_settings {setting.name}", setting.default, catalogue, IN_USE)
        for name in setting.dev:
            _need_stage(found, f"feature_settings {setting.name}", name, catalogue, (*IN_USE, "staging"))
    for feature in catalogue.features.values():
        _need_stage(found, f"features {feature.name}", feature.model, catalogue, IN_USE, "model")
        _check_feature(found, feature, catalogue)


def _need_stage(
    found: Findings, key: str, name: str, catalogue: Catalogue, stages: tuple[str, ...], member: str = ""
) -> None:
    model = catalogue.models.get(name)
    if model is not None and name not in catalogue.aliases and model.stage not in stages:
        found.add(
            key, f"model `{name}` is in stage {model.stage}", f"expected one in stage {' or '.join(stages)}", member
        )


def _check_feature(found: Findings, feature: FeatureRecord, catalogue: Catalogue) -> None:
    wanted = feature.needs
    told: set[str] = set()
    for model, way in _answering(feature, catalogue):
        lacking = sorted(wanted - model.abilities)
        if lacking and model.name not in told:
            told.add(model.name)
            found.add(
                f"features {feature.name}",
                f"model `{model.name}`{way} lacks {', '.join(lacking)}",
                "expected it among its `capabilities`, or another model",
                "requires",
            )


def _answering(feature: FeatureRecord, catalogue: Catalogue) -> Iterator[tuple[ModelRecord, str]]:
    """Every model that may answer the feature, and how it comes to that."""
    setting = catalogue.feature_settings.get(feature.feature_setting)
    ways = [(feature.model, "")]
    if setting is not None:
        ways += [(setting.default, f" of feature setting `{setting.name}`")]
        ways += [(name, f" offered by feature setting `{setting.name}`") for name in setting.selectable]
    for name, way in ways:
        alias = catalogue.aliases.get(name)
        for each in alias.models if alias is not None else (name,):
            through = f"{way}, through alias `{name}`," if alias is not None else way
            yield from _with_successors(catalogue.models, each, through)


def _with_successors(models: Mapping[str, ModelRecord], name: str, way: str) -> Iterator[tuple[ModelRecord, str]]:
    model = models[name]
    if model.stage not in IN_USE:
        return  # nothing leads there unasked
    yield model, way
    if model.successor:  # no circle: check_models has looked
        yield from _with_successors(models, model.successor, f", the successor of `{name}`,")
