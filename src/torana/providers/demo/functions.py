"""Small function bodies, from a name and its parameters; the same recipes serve every language."""

import re
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

from torana.providers.demo.languages import Language, fill, read_yaml

MAKERS = ("__init__", "initialize", "constructor", "__construct")
"""Methods that make an instance."""

Kind = Literal["value", "claim", "nothing"]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of recipes.yml: what a function does whose name has one of `words`."""

    words: tuple[str, ...]
    name: str
    params: tuple[str, ...] = ()
    """Their names, where the caller has given none."""
    takes: Literal["numbers", "list", "text"] = "numbers"
    value: str = ""
    guard: str = ""
    """A condition for answering `early` instead."""
    early: str = ""
    is_total: bool = False
    """Sums a list up."""
    is_claim: bool = False
    """Answers yes or no."""


@cache
def read_recipes() -> tuple[Recipe, ...]:
    text = files(__package__).joinpath("recipes.yml").read_text(encoding="utf-8")
    return read_yaml(text, tuple[Recipe, ...])


def split_words(name: str) -> list[str]:
    """`parseHTTPRequest`, `parse_http_request` → parse, http, request."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name[:200])]


def join_words(words: list[str], naming: str) -> str:
    """An identifier in the language's manner."""
    if naming == "snake":
        return "_".join(words)
    capitals = [word[:1].upper() + word[1:] for word in words]
    return "".join(capitals if naming == "pascal" else [*words[:1], *capitals[1:]])


def find_recipe(words: list[str], param_count: int | None = None) -> Recipe | None:
    """The first recipe whose words occur; with `param_count` one that takes so many parameters, else fewer."""
    found = [recipe for recipe in read_recipes() if any(sign in words for sign in recipe.words)]
    if param_count is None:
        return next(iter(found), None)
    fitting = [recipe for recipe in found if _needed(recipe) <= param_count]
    return next((recipe for recipe in fitting if _needed(recipe) == param_count), next(iter(fitting), None))


def _needed(recipe: Recipe) -> int:
    return len(recipe.params) if recipe.value or recipe.is_total else 0


def kind_of(recipe: Recipe | None) -> Kind:
    if recipe is None or not (recipe.value or recipe.is_total):
        return "nothing"
    return "claim" if recipe.is_claim else "value"


def read_params(text: str) -> list[str]:
    """The names of the parameters in `(a, int b, c: str = "x")`, without receivers; typed either way round."""
    names = []
    for part in text.strip().strip("()").split(",")[:8]:
        bare = part.split("=")[0].strip()
        typed = bare.split(":")[0] if ":" in bare and "::" not in bare else bare
        found = re.findall(r"[$@&*]*[A-Za-z_]\w*", typed)
        if not found:
            continue
        # `int count` and `String name` name last; `name string`, `items []int` (Go) first.
        is_go_like = re.match(r"\w+ [\[\]*]*(?:(?:int|string|bool|float|error|byte)\d*\Z|\w+\.\w+)", typed)
        name = (found[0] if is_go_like else found[-1]).lstrip("&*")
        if name not in ("self", "cls", "this", "void"):
            names.append(name)
    return names


def write_field(language: Language, param: str) -> str:
    """The assignment that keeps `param` in a field; a sigil stands before the value alone."""
    target, _, value = language.field.partition(" = ")
    return f"{fill(target, name=param.lstrip('$'))} = {fill(value, name=param)}"


def write_body(
    language: Language,
    name: str,
    params: list[str],
    unit: str,
    *,
    must_give: bool = False,
    recipe: Recipe | None = None,
) -> list[str]:
    """Lines of the body, relative to its own indentation; empty only in languages without functions.

    must_give   the declaration promises a value
    recipe      what it does; None: what its name says
    """
    words = split_words(name)
    if recipe is None or not params:
        recipe = find_recipe(words, len(params))
    if name in MAKERS and language.field and params:
        return [write_field(language, param) for param in params]
    if name == "new" and language.build and params:
        return [fill(language.build, params=", ".join(params))]
    if recipe is not None and kind_of(recipe) != "nothing":
        return _write_value(language, recipe, name, params, unit)
    if recipe is not None and not recipe.params and not recipe.value:
        lines = [fill(language.say, text="Hello, world!")]
    elif params and _is_plural(params[0]) and language.loop:
        item = params[0].rstrip("s") if params[0].endswith("s") else f"{language.sigil}item"
        head = fill(language.loop, item=item, items=params[0])
        lines = _block(language, head, fill(language.show, value=item), unit)
    elif recipe is not None and params:
        lines = [fill(language.show_text or language.show, value=params[0])]
    elif params:
        return [fill(language.give, value=params[0])]
    else:
        lines = [fill(language.say, text=" ".join(words) or "ready")]
    if must_give:
        lines.append(fill(language.give, value=params[0] if params else "0"))
    return [line for line in lines if line]


def _write_value(language: Language, recipe: Recipe, name: str, params: list[str], unit: str) -> list[str]:
    slots = {"a": params[0], "b": params[-1], "self": name}
    lines = []
    if recipe.is_total:
        total, item = f"{language.sigil}total", f"{language.sigil}number"
        if not language.loop:
            return [fill(language.give, value=f"{params[0]}[0]")]
        add = f"{total} += {item}{language.end_mark}"
        head = fill(language.loop, item=item, items=params[0])
        lines = [fill(language.assign, name=total, value="0"), *_block(language, head, add, unit)]
        return [*lines, fill(language.give, value=total)]
    if recipe.guard:
        head = fill(language.guard, condition=fill(recipe.guard, **slots))
        lines = _block(language, head, fill(language.early or language.give, value=fill(recipe.early, **slots)), unit)
    return [*lines, fill(language.give, value=fill(recipe.value, **slots))]


def _block(language: Language, head: str, line: str, unit: str) -> list[str]:
    return [head, unit + line, *([language.closer] if language.closer else [])]


def _is_plural(param: str) -> bool:
    bare = param.lstrip("$@_")
    return bare in ("data", "list", "array") or (len(bare) > 3 and bare.endswith("s") and not bare.endswith("ss"))
