"""Settings that name what stands in the catalogue or in another room: else nobody hears of a misspelt one."""

import difflib
from collections.abc import Collection, Iterable

from torana.code.clean import STEP_NAMES
from torana.errors import BadSetting, Invalid
from torana.routing.models import SETTINGS_OF_ROLES, Models
from torana.settings import Settings


def check_overrides(settings: Settings, models: Models) -> list[str]:
    """What is named and not there, as lines for the log.

    Raises BadSetting where requests would fail.
    """
    catalogue, providers, prompts = models.catalogue, settings.providers, settings.catalogue
    for feature_setting, name in providers.default_models.items():
        try:
            models.find_by_name(name)
        except Invalid:
            raise BadSetting(
                "AIGW_MODEL_SELECTION__DEFAULT_MODELS",
                f"{feature_setting} leads to {name!r}, which is no model in use",
                _expected(name, [*catalogue.models, *catalogue.aliases]),
            ) from None
    known = {*catalogue.feature_settings, *SETTINGS_OF_ROLES.values()}
    return [
        *_strangers("AIGW_FEATURE_FLAGS__EXCL_POST_PROCESS", "step", prompts.excl_post_process, STEP_NAMES),
        *_strangers("AIGW_MODEL_SELECTION__DEFAULT_MODELS", "feature setting", providers.default_models, known),
        *_strangers("AIGW_MODEL_SELECTION__MODEL_PARAMS", "model", providers.model_params, catalogue.models),
        *_strangers("AIGW_MODEL_SELECTION__PROMPT_PARAMS", "prompt", prompts.prompt_params, catalogue.prompts),
        *_strangers("AIGW_DEFAULT_PROMPTS", "prompt", prompts.default_prompts, catalogue.prompts),
        *(
            fault
            for prompt, variant in prompts.default_prompts.items()
            if prompt in catalogue.prompts
            for fault in _strangers(
                "AIGW_DEFAULT_PROMPTS", f"variant of {prompt}", [variant], catalogue.prompts[prompt]
            )
        ),
    ]


def _strangers(setting: str, kind: str, named: Iterable[str], known: Collection[str]) -> list[str]:
    """Other gateways have more of them: no reason not to start."""
    return [
        f"{setting}: there is no {kind} {name!r}, ignored; {_expected(name, known)}"
        for name in named
        if name not in known
    ]


def _expected(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "expected the name of a known one"
