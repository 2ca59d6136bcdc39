"""Writes a small piece of code from an instruction: a named function, its parameters, a simple body."""

import re

from torana.chat import ChatRequest
from torana.providers.demo.functions import Recipe, find_recipe, join_words, kind_of, split_words, write_body
from torana.providers.demo.languages import NAMES, Language, fill, find_language, read_language
from torana.providers.demo.question import find_question

MAX_INSTRUCTION_CHARS = 2_000
MAX_NAME_WORDS = 4

_IDLE = frozenset(
    re.findall(
        r"\w+",
        """
        a an the and or of to in on at by for from with that this these those which who it its is are be as into if so
        write create make add generate implement use using please me my i we you want need should would could can will
        new simple small function method class code program script snippet called named given takes take returns
        return returning accepts one two three some any all number numbers string text value values result
        """,
    )
)
_LANGUAGE_WORDS = {
    "python": "python", "ruby": "ruby", "javascript": "javascript", "js": "javascript", "typescript": "typescript",
    "golang": "go", "java": "java", "rust": "rust", "c++": "cpp", "c#": "csharp", "php": "php", "bash": "bash",
    "shell": "bash", "kotlin": "kotlin", "swift": "swift", "sql": "sql", "yaml": "yaml",
}  # fmt: skip


def generate(chat: ChatRequest) -> str:
    """Code for the instruction in the last user message; plain, without fences and tags."""
    instruction = find_question(chat.messages)[:MAX_INSTRUCTION_CHARS]
    fill_in = chat.fill_in
    before = fill_in.prefix[-4_000:] if fill_in else ""
    if fill_in and (fill_in.language or fill_in.file_name or before.strip()):
        name = find_language(fill_in.language, fill_in.file_name, before)
    else:
        name = _language_in(instruction)
    language = read_language(name)
    lead = "\n" if before and not before.endswith("\n") else ""
    return lead + "\n".join(write_function(language, instruction, language.indent)) + "\n"


def write_function(language: Language, instruction: str, unit: str) -> list[str]:
    """Lines of a function that does what the instruction names, as far as a recipe knows it."""
    words = split_words(instruction)
    given_name = re.search(r"(?:called|named)\s+[`'\"]?([A-Za-z_]\w*)|`([A-Za-z_]\w*)`", instruction)
    recipe = find_recipe([*split_words(given_name[1] or given_name[2]), *words] if given_name else words)
    name_words = [word for word in words if word not in _IDLE and word not in _LANGUAGE_WORDS][:MAX_NAME_WORDS]
    if given_name:
        name = given_name[1] or given_name[2]
    elif recipe is not None and kind_of(recipe) != "nothing":
        name = join_words(recipe.name.split(), language.naming)
    else:
        name = join_words(name_words or ["hello", "world"], language.naming)
    if language.snippet:
        return fill(language.snippet, name=join_words(name_words[-1:] or ["items"], "snake")).rstrip().split("\n")
    if name[0].isdigit() or name in language.words:
        name = f"run_{name}" if language.naming == "snake" else f"run{name.capitalize()}"
    comment = re.sub(r"\s+", " ", instruction).strip()[:100]
    lines = [f"{language.comment} {comment}"] if comment else []
    return [*lines, *_declare(language, name, recipe, unit)]


def write_known_function(language: Language, comment: str, unit: str) -> list[str]:
    """As `write_function`, for a comment; nothing where no recipe knows what to do."""
    words = split_words(comment)
    recipe = find_recipe(words)
    if recipe is None or kind_of(recipe) == "nothing" or language.snippet or len(words) < 2:
        return []
    return _declare(language, join_words(recipe.name.split(), language.naming), recipe, unit)


def _declare(language: Language, name: str, recipe: Recipe | None, unit: str) -> list[str]:
    params = [language.sigil + param for param in recipe.params] if recipe and language.takes_params else []
    takes = recipe.takes if recipe else "numbers"
    template = {"list": language.list_param, "text": language.text_param}.get(takes, "") or language.param
    kind = kind_of(recipe) if params else "nothing"
    returns = {"value": language.returns_value, "claim": language.returns_claim or language.returns_value}.get(kind)
    head = fill(
        language.bare_declare if language.bare_declare and not params else language.declare,
        name=name,
        params=", ".join(fill(template, name=param) for param in params),
        returns=language.returns_nothing if returns is None else returns,
    )
    # The body is written for what the recipe does, whatever the function is called.
    body = write_body(language, name, params, unit, recipe=recipe)
    return [
        head,
        *(unit + line for line in body or [language.empty_body]),
        *([language.closer] if language.closer else []),
    ]


def _language_in(instruction: str) -> str:
    for word in re.findall(r"[\w+#]+", instruction.lower()):
        if word in _LANGUAGE_WORDS:
            return _LANGUAGE_WORDS[word]
    return "go" if re.search(r"\bin Go\b", instruction) and "go" in NAMES else "python"
