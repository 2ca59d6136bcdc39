"""Prompts by id, family and version, and their rendering into a ChatRequest."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from torana.catalog.document import nearest
from torana.catalog.records import FeatureRecord
from torana.catalog.snapshot import Catalogue, PromptSource
from torana.chat import ChatRequest, Message, Role, Text
from torana.clock import Clock
from torana.errors import BadCatalogue, Invalid, Refusal
from torana.prompts.features import feature_problems
from torana.prompts.grammar import BadTemplate
from torana.prompts.marks import mark
from torana.prompts.prompt import Part, Prompt, build_prompt
from torana.prompts.sandbox import Meter, Sandbox, render_text, with_meter
from torana.prompts.versions import DEFAULT_CONSTRAINT, Version, pick, read_constraint, read_version, read_versions
from torana.settings import CatalogueSettings

logger = logging.getLogger("torana.prompts")

BASE = "base"
MAX_FOUND = 2_000
"""Look-ups that are remembered."""
_SHOWN_CHARS = 200
"""Of an id that nobody has: it is the client's, as long as a body may be."""
_OWN_FIELDS = ("max_tokens", "temperature", "top_p", "top_k")
"""Parameters that ChatRequest has a word for; others travel in `extra`."""
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


class Prompts:
    """All prompts of one catalogue. Files are read, checked and compiled once, when first asked for.

    Overlay files are checked at once; raises BadCatalogue with all their problems.
    """

    def __init__(self, catalogue: Catalogue, settings: CatalogueSettings, clock: Clock | None = None) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._clock = clock or Clock()
        self._sandbox = Sandbox(catalogue.templates)
        self._built: dict[tuple[str, str, str], Prompt] = {}
        self._found: dict[tuple[str, str | None, tuple[str, ...]], Prompt] = {}
        self._date = (-1, "")
        self._versions: dict[tuple[str, str], dict[Version, str]] = {}
        self._default = read_constraint(DEFAULT_CONSTRAINT)
        if catalogue.overlaid and (problems := self.check(overlays_only=True)):
            raise BadCatalogue(problems)

    def find(self, prompt_id: str, constraint: str | None = None, families: Sequence[str] = ()) -> Prompt:
        """The prompt to use (contract 8.4): first variant that exists, highest version that is allowed.

        families   the model's, best first; then the operator's default for the id, then `base`
        Raises Refusal 404 and 400, Invalid 422 for an unreadable constraint.
        """
        key = (prompt_id, constraint, tuple(families))
        known = self._found.get(key)
        if known is not None:
            return known
        wanted = self._default if constraint is None else read_constraint(constraint)
        variants = self._catalogue.prompts.get(prompt_id, {})
        wishes = (*families, self._default_variant(prompt_id), BASE)
        variant = next((name for name in wishes if name in variants), None)
        if variant is None:
            raise Refusal(404, "prompt_not_found", f"Prompt '{prompt_id[:_SHOWN_CHARS]}' not found")
        version = pick(wanted, self._versions_of(prompt_id, variant))
        if version is None:
            text = f"No version of prompt '{prompt_id}' matches the constraint"
            raise Refusal(400, "prompt_version_unmatched", text, missing="prompt_version")
        if wanted.pin is not None and wanted.pin != read_version(version):
            facts = {"prompt_id": prompt_id, "prompt_version": constraint, "used_version": version}
            logger.warning("a pinned prompt version does not exist", extra=facts)
        found = self._build((prompt_id, variant, version), variants[variant][version])
        # Clients choose constraints: bounded. A pin is looked up anew, so that a missing one is logged each time.
        if len(self._found) < MAX_FOUND and wanted.pin is None:
            self._found[key] = found
        return found

    def render(
        self, prompt: Prompt, inputs: Mapping[str, Any], *, model_params: Mapping[str, Any] | None = None
    ) -> ChatRequest:
        """Fill the prompt in. Values are inserted as they are, never read as templates.

        model_params   defaults of the model's record; the prompt file's win over them, the operator's over both
        Raises Invalid 422: an input is missing or does not fit, or the result is too large.
        """
        meter = Meter(self._settings.max_output_chars, self._settings.max_iterations)
        values = with_meter({"current_date": self._today(), **inputs}, meter)
        ordered: Mapping[str, Any] = self._settings.prompt_params.get(prompt.id, {})
        params = {**(model_params or {}), **prompt.params, **ordered}
        timeout_s = params.pop("timeout", None)
        if prompt.timeout_s is not None and "timeout" not in ordered:
            timeout_s = prompt.timeout_s
        stop = params.pop("stop", None) or ()
        own = {name: params.pop(name) for name in _OWN_FIELDS if name in params}
        retries = params.pop("max_retries", None)
        if prompt.answer == "react" and self._settings.chat_max_tokens:
            own["max_tokens"] = self._settings.chat_max_tokens
        return ChatRequest(
            messages=tuple(_fill(prompt, values, meter)),
            stop=prompt.stop or ((stop,) if isinstance(stop, str) else tuple(stop)),
            answer=prompt.answer,
            timeout_s=timeout_s,
            hedge_after_s=prompt.hedge_after_s,
            tries=None if retries is None else retries + 1,
            extra=params,
            **own,
        )

    def check(self, *, overlays_only: bool = False) -> list[str]:
        """Read, check and compile every file; one line `file:line: what, expected` for each problem.

        overlays_only   but for what is shipped, and stands on nothing that is not
        """
        catalogue = self._catalogue
        problems: list[str] = []
        for key, source in self._sources():
            if overlays_only and not source.is_overlay:
                continue
            try:
                self._build(key, source)
            except BadCatalogue as bad:
                problems += bad.problems
        for name, text in catalogue.templates.items():
            entry = f"template {name}"
            if overlays_only and entry not in catalogue.overlaid:
                continue
            try:
                self._sandbox.compile_text(text)
            except BadTemplate as bad:
                path = catalogue.places[entry].rpartition(":")[0]
                problems.append(f"{path}:{bad.line}: {bad.what}, {bad.expected}")
        features = [
            feature for feature in catalogue.features.values() if not overlays_only or _is_touched(feature, catalogue)
        ]
        found = feature_problems(features, catalogue, self._build)
        return [*problems, *self._doubled_versions(), *found]

    def notes(self) -> list[str]:
        """What is no fault and may be a slip, as `check` tells faults: variants that no model is given, and prompts
        that models of most families do not find."""
        catalogue = self._catalogue
        known = {BASE, *catalogue.families}
        for record in catalogue.families.values():
            known.update(record.variants)
        for model in catalogue.models.values():
            known.update(model.families)
        lines = []
        for prompt_id, variants in catalogue.prompts.items():
            for variant in variants.keys() - known - {self._default_variant(prompt_id)}:
                place = next(iter(variants[variant].values())).path
                hint = nearest(variant, known, "expected the name of a family in models.yml")
                lines.append(f"{place}:1: variant `{variant}` is for no model, {hint}")
        return sorted([*lines, *self._without_base()])

    def _build(self, key: tuple[str, str, str], source: PromptSource) -> Prompt:
        if key not in self._built:
            self._built[key] = build_prompt(key, source, self._sandbox, self._catalogue.unit_primitives)
        return self._built[key]

    def _versions_of(self, prompt_id: str, variant: str) -> dict[Version, str]:
        key = (prompt_id, variant)
        if key not in self._versions:
            self._versions[key] = read_versions(self._catalogue.prompts[prompt_id][variant])
        return self._versions[key]

    def _sources(self) -> Iterator[tuple[tuple[str, str, str], PromptSource]]:
        for prompt_id, variants in self._catalogue.prompts.items():
            for variant, versions in variants.items():
                for version, source in versions.items():
                    yield (prompt_id, variant, version), source

    def _default_variant(self, prompt_id: str) -> str:
        return str(self._settings.default_prompts.get(prompt_id, BASE))

    def _without_base(self) -> Iterator[str]:
        for prompt_id, variants in self._catalogue.prompts.items():
            if BASE not in variants and self._default_variant(prompt_id) not in variants:
                place = next(iter(next(iter(variants.values())).values())).path
                yield f"{place}:1: no variant `{BASE}`: models of other families do not find the prompt"

    def _doubled_versions(self) -> Iterator[str]:
        """`1.0.0-rc1.yml` beside `1.0.0-rc.1.yml`: no constraint could tell them apart."""
        seen: dict[tuple[object, ...], PromptSource] = {}
        for (prompt_id, variant, version), source in self._sources():
            other = seen.setdefault((prompt_id, variant, read_version(version)), source)
            if other is not source:
                yield f"{source.path}:1: is the same version as {other.path.name}, expected one file each"

    def _today(self) -> str:
        seconds = self._clock.now()
        day = int(seconds // 86_400)
        if self._date[0] != day:
            now = datetime.fromtimestamp(seconds, UTC)
            self._date = (day, f"{now:%B} {now.day}, {now.year}")
        return self._date[1]


def _is_touched(feature: FeatureRecord, catalogue: Catalogue) -> bool:
    """Whether an operator has laid anything over what the feature stands on; templates may be anybody's."""
    beginnings = (f"prompt {feature.prompt_id}/", "template ")
    return any(key == f"features {feature.name}" or key.startswith(beginnings) for key in catalogue.overlaid)


def _fill(prompt: Prompt, values: dict[str, Any], meter: Meter) -> list[Message]:
    """The prompt's messages; the last of those at the beginning that are the same for everybody is marked."""
    messages: list[Message] = []
    head = 0  # how many messages at the beginning are the same for everybody
    ready: Message | None = None
    """The last of them, marked."""
    for part in prompt.parts:
        is_head = part.is_same_for_all and head == len(messages)
        if part.message is not None:
            meter.put_out(len(part.text or ""))
            messages.append(part.message)
        else:
            messages += _messages(part, values, meter)
        if is_head and head < len(messages):
            head, ready = len(messages), part.marked
    if ready is not None:
        messages[head - 1] = ready
    elif head:
        messages = mark(messages, head - 1)
    return messages


def _messages(part: Part, values: dict[str, Any], meter: Meter) -> Iterator[Message]:
    if part.role == "placeholder":
        yield from _brought_messages(part.input, values, meter)
        return
    texts = [render_text(template, values) for template in part.templates]
    text = texts[0] if len(texts) == 1 else "\n".join(texts)
    # Vendors refuse messages without text, and an optional part may well be empty.
    if text.strip():
        yield Message(part.role, (Text(text),))


def _brought_messages(name: str, values: Mapping[str, Any], meter: Meter) -> Iterator[Message]:
    if name not in values:
        raise Invalid(("inputs", name), f"Missing input '{name}'", "missing")
    if not isinstance(values[name], (list, tuple)):
        raise Invalid(("inputs", name), "Input should be a list of messages", "list_type")
    for index, message in enumerate(values[name]):
        role = _ROLES.get(str(message.get("role"))) if isinstance(message, Mapping) else None
        if role is None or not isinstance(message.get("content"), str):
            raise Invalid(("inputs", name, index), "Input should be a message with role and content")
        meter.put_out(len(message["content"]))
        if message["content"].strip():
            yield Message(role, (Text(message["content"]),))
