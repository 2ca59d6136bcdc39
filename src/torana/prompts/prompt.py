"""One prompt file, checked and compiled."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jinja2 import Template

from torana.catalog.document import Document, nearest
from torana.catalog.model_params import wrong_params
from torana.catalog.records import PromptFile
from torana.catalog.snapshot import PromptSource
from torana.chat import AnswerForm, Message, Role, Text
from torana.errors import BadCatalogue
from torana.prompts.grammar import BadTemplate
from torana.prompts.marks import mark
from torana.prompts.sandbox import Sandbox

_PLACEHOLDER = re.compile(r"\s*(?:\{\{?\s*)?(?P<name>[A-Za-z]\w*)(?:\s*\}?\})?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """One entry of `prompt_template`: texts of one role, or a list of messages that an input brings."""

    role: Role | Literal["placeholder"]
    templates: tuple[Template, ...] = ()
    text: str | None = None
    """All of it where nothing in it varies: it need not be rendered each time."""
    is_same_for_all: bool = False
    """It reads no input and no date, and neither does any part before it, so that a provider may keep it."""
    input: str = ""
    """With role `placeholder`: the input that holds the messages."""
    message: Message | None = field(init=False, default=None)
    """What it comes to where nothing in it varies, made once; vendors refuse messages without text."""
    marked: Message | None = field(init=False, default=None)
    """The same with a mark at its end (marks.py)."""

    def __post_init__(self) -> None:
        if self.text is not None and self.text.strip() and self.role != "placeholder":
            message = Message(self.role, (Text(self.text),))
            object.__setattr__(self, "message", message)
            object.__setattr__(self, "marked", mark([message], 0)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt of one version, ready to be rendered."""

    id: str
    variant: str
    version: str
    name: str
    unit_primitives: tuple[str, ...]
    """All of them must be held."""
    any_of: tuple[str, ...] = ()
    """And one of these, where there are any."""
    parts: tuple[Part, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    """`model.params` of the file."""
    stop: tuple[str, ...] = ()
    timeout_s: float | None = None
    location: str = ""
    """Where a cloud that lets callers choose is to be asked; empty: wherever the model's record says."""
    hedge_after_s: float | None = None
    answer: AnswerForm = "text"
    needs: frozenset[str] = frozenset({"chat"})
    """Abilities that the model must have."""
    variables: frozenset[str] = frozenset()
    """Inputs it needs: read somewhere, and never tested with `is defined` or given a default."""

    @property
    def is_simple(self) -> bool:
        """Inputs in, text out: what the prompt endpoints serve."""
        return self.answer != "react" and all(part.role != "placeholder" for part in self.parts)


def build_prompt(
    key: tuple[str, str, str], source: PromptSource, sandbox: Sandbox, unit_primitives: Collection[str]
) -> Prompt:
    """Read, check and compile one file. Raises BadCatalogue with all its problems.

    key   id, variant, version
    """
    document = source.document()
    file = document.convert(PromptFile)
    building = _Building(document, sandbox)
    parts = tuple(building.part(role, texts) for role, texts in file.prompt_template.items())
    problems = [*building.problems, *_wrong_members(document, file, unit_primitives)]
    if problems:
        raise BadCatalogue(problems)
    prompt_id, variant, version = key
    return Prompt(
        id=prompt_id,
        variant=variant,
        version=version,
        name=file.name,
        unit_primitives=_unit_primitives(file),
        any_of=file.params.any_of,
        parts=parts,
        params=file.model.params,
        stop=file.params.stop,
        timeout_s=file.params.timeout,
        location=file.params.vertex_location,
        hedge_after_s=file.params.hedge_after,
        answer=file.params.answer,
        needs=frozenset(("chat", *file.params.requires)),
        variables=frozenset(building.reads - {"current_date"}),
    )


class _Building:
    """Compiles the texts of one file; collects what is wrong and which variables they read."""

    def __init__(self, document: Document, sandbox: Sandbox) -> None:
        self.document = document
        self.sandbox = sandbox
        self.problems: list[str] = []
        self.reads: set[str] = set()
        self.followed: set[str] = set()
        self.is_head = True
        """All parts so far are the same for everybody."""

    def part(self, role: str, value: str | list[str]) -> Part:
        texts = _texts(value)
        if role == "placeholder":
            names = [match["name"] for text in texts if (match := _PLACEHOLDER.fullmatch(text))]
            if len(texts) == len(names) == 1:
                self.reads.add(names[0])
                return Part("placeholder", input=names[0])
            self._add("`placeholder` names no input", "expected the name of one input", role)
            return Part("placeholder")
        paths: list[tuple[str | int, ...]] = (
            [(role,)] if isinstance(value, str) else [(role, i) for i in range(len(value))]
        )
        compiled = [self._compile(text, path) for text, path in zip(texts, paths, strict=True)]
        templates = tuple(template for template in compiled if template is not None)
        # Behind a part that varies nobody asks: what a provider keeps is a head.
        is_same = self.is_head = (
            self.is_head and len(templates) == len(texts) and not any(map(self.sandbox.varies, texts))
        )
        if role in ("user", "assistant"):
            said: Role = "user" if role == "user" else "assistant"
            return Part(said, templates, _constant(texts), is_same_for_all=is_same)
        if role != "system" and not role.startswith("system_"):
            self._add(f"unknown role `{role}`", "expected system, system_…, user, assistant or placeholder", role)
        return Part("system", templates, _constant(texts), is_same_for_all=is_same)

    def _compile(self, text: str, path: tuple[str | int, ...]) -> Template | None:
        try:
            template = self.sandbox.compile_text(text)
            self.reads |= self._reads(text, path)
        except BadTemplate as bad:
            place = self.document.text_problem(bad.line, bad.what, bad.expected, "prompt_template", *path)
            self.problems.append(place)
            return None
        return template

    def _reads(self, text: str, path: tuple[str | int, ...], trail: tuple[str, ...] = ()) -> frozenset[str]:
        """The variables that `text` and all that it includes need from outside."""
        survey = self.sandbox.survey(text)
        reads = survey.reads
        for name in survey.includes:
            included = self.sandbox.templates.get(name)
            if included is None:
                self._add(f"includes `{name}`, which does not exist", "expected a path below prompts/", *path)
            elif name in trail:
                self._add(f"`{name}` includes itself", "expected includes without a circle", *path)
            elif name not in self.followed:
                self.followed.add(name)
                try:
                    reads |= self._reads(included, path, (*trail, name)) - survey.binds
                except BadTemplate as bad:
                    self._add(f"includes `{name}`, in whose line {bad.line} {bad.what}", bad.expected, *path)
        return reads

    def _add(self, what: str, expected: str, *path: str | int) -> None:
        self.problems.append(self.document.problem(what, expected, "prompt_template", *path))


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _constant(texts: list[str]) -> str | None:
    """The joined texts where none of them has anything for the template language to do."""
    if any(mark in text for text in texts for mark in ("{{", "{%", "{#")):
        return None
    # As the template language has it: one line end at the end of a text is not part of it.
    return "\n".join(text.removesuffix("\n") for text in texts)


def _unit_primitives(file: PromptFile) -> tuple[str, ...]:
    """Both spellings, the plural of 17.x and the singular of 19.x."""
    single = (file.unit_primitive,) if file.unit_primitive else ()
    return tuple(dict.fromkeys((*file.unit_primitives, *single)))


def _wrong_members(document: Document, file: PromptFile, unit_primitives: Collection[str]) -> Iterator[str]:
    names = _unit_primitives(file)
    if not names and not file.params.any_of:
        yield document.problem("names no unit primitive", "expected `unit_primitives` or `unit_primitive`")
    for name in names:
        if name not in unit_primitives:
            where = "unit_primitives" if name in file.unit_primitives else "unit_primitive"
            hint = nearest(name, unit_primitives, "expected one of unit_primitives.yml")
            yield document.problem(f"unknown unit primitive `{name}`", hint, where)
    for name in file.params.any_of:
        if name not in unit_primitives:
            hint = nearest(name, unit_primitives, "expected one of unit_primitives.yml")
            yield document.problem(f"unknown unit primitive `{name}`", hint, "params", "any_of")
    if not any(text.strip() for value in file.prompt_template.values() for text in _texts(value)):
        yield document.problem("has no texts", "expected at least one role with a text", "prompt_template")
    for name, wrong, expected in wrong_params(file.model.params):
        yield document.problem(wrong, expected, "model", "params", name)
