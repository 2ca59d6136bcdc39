"""Do the catalogue's features fit the prompts that they name? Asked at load and by `torana check`."""

from collections.abc import Callable, Iterable, Iterator

from torana.catalog.document import nearest
from torana.catalog.findings import member_place
from torana.catalog.records import FeatureRecord
from torana.catalog.snapshot import Catalogue, PromptSource
from torana.errors import BadCatalogue, Invalid
from torana.prompts.prompt import Prompt
from torana.prompts.versions import DEFAULT_CONSTRAINT, pick, read_constraint, read_versions

Build = Callable[[tuple[str, str, str], PromptSource], Prompt]
"""(id, variant, version), file → the prompt; raises BadCatalogue."""


def feature_problems(features: Iterable[FeatureRecord], catalogue: Catalogue, build: Build) -> Iterator[str]:
    """One line `file:line: name: what, expected` for each thing that would fail at the first request."""
    for feature in features:
        for variant in catalogue.prompts.get(feature.prompt_id, {}):
            for member, what, expected in _faults(feature, variant, catalogue, build):
                place = member_place(catalogue.places, feature.name, member)
                yield f"{place}: {feature.name}: {what}, {expected}"


def _faults(feature: FeatureRecord, variant: str, catalogue: Catalogue, build: Build) -> Iterator[tuple[str, str, str]]:
    """(member of the feature that does not fit, what is wrong, what is expected)."""
    sources = catalogue.prompts[feature.prompt_id][variant]
    try:
        wanted = read_constraint(feature.prompt_constraint or DEFAULT_CONSTRAINT)
        versions = read_versions(sources)
    except (Invalid, ValueError):
        yield "prompt", f"`{feature.prompt}` names no version", "expected a constraint such as @^1.0.0"
        return
    version = pick(wanted, versions)
    # Clients' pins may miss, for they come from other releases; an author's pin is a slip of the pen.
    if version is None or (wanted.pin is not None and wanted.pin not in versions):
        what = f"`{feature.prompt}` allows no version of variant {variant}"
        yield "prompt", what, f"expected one of {', '.join(sources)}"
        return
    try:
        prompt = build((feature.prompt_id, variant, version), sources[version])
    except BadCatalogue:
        return  # told with its own file and line
    name = f"prompt {prompt.id}/{variant}/{version}"
    for missing in sorted(prompt.variables - feature.inputs.keys()):
        hint = nearest(missing, feature.inputs, "expected an input of that name")
        yield "inputs", f"{name} needs `{missing}`", hint
    if not prompt.is_simple:
        yield "prompt", f"{name} is not of the simple kind", "expected a prompt that turns inputs into text"
    if (feature.answer == "json") != (prompt.answer == "json"):
        yield "answer", f"{name} answers {prompt.answer}", f"expected the feature's own `answer`, {feature.answer}"
    for ability in sorted(prompt.needs - feature.needs):
        yield "requires", f"{name} requires `{ability}`", "expected the feature to require it too"
