"""What the demo knows of a programming language; one file per language in `languages/`.

A file holds templates for the few statements that the demo writes, and a sample: the shipped table
from which n-grams are read when the caller's own file has nothing better.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Literal, TypeVar

import msgspec
import yaml

T = TypeVar("T")


class Language(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Templates hold `{name}`, `{value}`, … and are filled by `fill`; an empty one: the language has no such thing."""

    style: Literal["indent", "braces", "end", "flat"]
    """How blocks end: by indentation, `}`, a word, or there are none."""
    naming: Literal["snake", "camel", "pascal"]
    comment: str
    indent: str = "    "
    """One level, where the file itself shows none."""
    header: str = ""
    """Expression of a stripped line that declares a function: groups `name` and `rest`, the text after it."""
    opener: str = ""
    """Ends a header whose body follows."""
    closer: str = ""
    blocks: tuple[tuple[str, str], ...] = ()
    """(expression of a whole stripped line that opens a block, the word that closes it)."""
    declare: str = ""
    bare_declare: str = ""
    """`declare` for a function without parameters, where that reads differently."""
    takes_params: bool = True
    sigil: str = ""
    """Stands before every variable."""
    reads_with: str = ""
    """Stands before a variable where it is read, and only there."""
    param: str = "{name}"
    list_param: str = ""
    text_param: str = ""
    returns_value: str = ""
    returns_claim: str = ""
    """The declared type of a function that answers yes or no."""
    returns_nothing: str = ""
    say: str = ""
    """Prints a fixed text."""
    show: str = ""
    """Prints a value."""
    show_text: str = ""
    """Prints a text variable, where that differs from `show`."""
    give: str = ""
    """Returns a value as the last statement of a function."""
    early: str = ""
    """Returns a value before the end, where that differs from `give`."""
    guard: str = ""
    loop: str = ""
    assign: str = ""
    field: str = ""
    maker: str = ""
    """Declares what makes an instance of the class `name`."""
    own: str = ""
    """The first parameter of a method, where it is written out."""
    empty_body: str = ""
    """A statement that does nothing, where a block may not be empty."""
    end_mark: str = ""
    binds: str = ""
    """Expression of what names something without assigning it."""
    is_data: bool = False
    """No statements and no variables: entries resemble those beside them."""
    build: str = ""
    """Makes an instance of the type around a function, from its `params`."""
    snippet: str = ""
    """What is generated in languages without functions."""
    keywords: str = ""
    sample: str = ""

    @property
    def mark(self) -> str:
        """Stands before a variable that is read."""
        return self.sigil or self.reads_with

    @property
    def words(self) -> frozenset[str]:
        return _split(self.keywords)


@cache
def _split(keywords: str) -> frozenset[str]:
    return frozenset(keywords.split())


_EXTENSIONS = {
    "py": "python", "pyi": "python", "rb": "ruby", "rake": "ruby", "js": "javascript", "jsx": "javascript",
    "mjs": "javascript", "cjs": "javascript", "vue": "javascript", "ts": "typescript", "tsx": "typescript",
    "go": "go", "java": "java", "rs": "rust", "c": "c", "h": "c", "cc": "cpp", "cpp": "cpp", "cxx": "cpp",
    "hpp": "cpp", "cs": "csharp", "php": "php", "sh": "bash", "bash": "bash", "zsh": "bash", "kt": "kotlin",
    "kts": "kotlin", "swift": "swift", "sql": "sql", "yml": "yaml", "yaml": "yaml", "css": "css", "scss": "css",
    "less": "css", "html": "html", "htm": "html", "xhtml": "html", "xml": "html", "svg": "html", "erb": "html",
    "tf": "hcl", "tfvars": "hcl", "hcl": "hcl", "json": "json", "jsonc": "json", "md": "text", "markdown": "text",
    "txt": "text", "rst": "text", "adoc": "text", "toml": "text", "ini": "text", "cfg": "text", "csv": "text",
}  # fmt: skip
_OTHER_NAMES = {
    "js": "javascript", "ts": "typescript", "tsx": "typescript", "javascriptreact": "javascript",
    "typescriptreact": "typescript", "golang": "go", "c++": "cpp", "c#": "csharp", "shell": "bash",
    "shellscript": "bash", "sh": "bash", "objc": "c", "scala": "kotlin", "dart": "java", "groovy": "java",
    "terraform": "hcl", "scss": "css", "less": "css", "xml": "html", "markdown": "text", "plaintext": "text",
    "toml": "text", "dockerfile": "text", "make": "text", "cmake": "text", "haskell": "text", "julia": "text",
    "perl": "text", "powershell": "text", "proto": "text", "graphql": "text", "clojure": "text", "erlang": "text",
    "r": "text", "zig": "text", "ocaml": "text", "fsharp": "text", "solidity": "text",
    "elixir": "ruby", "lua": "ruby", "crystal": "ruby", "vue": "javascript", "svelte": "javascript",
}  # fmt: skip
NAMES = frozenset(_EXTENSIONS.values())
"""`text` is the language of what has none."""

# Looked for in this order; the first that is found names the language of code without a name.
_SIGNS = (
    ("php", r"<\?php"),
    ("python", r"^[ \t]*(?:async )?def \w+\(.*\).*:[ \t]*$|^[ \t]*(?:el)?if .*:[ \t]*$"),
    ("python", r"^[ \t]*(?:from [\w.]+ )?import [\w., ]+$"),
    ("go", r"^package \w+$|^func |:= "),
    ("rust", r"^[ \t]*(?:pub )?fn \w|^use \w+::|\blet mut "),
    ("java", r"^[ \t]*public (?:static |final |class |interface )|^import java"),
    ("csharp", r"^using [\w.]+;$|^namespace "),
    ("cpp", r"#include <\w+>[ \t]*$|\bstd::"),
    ("c", r"#include "),
    ("swift", r"^[ \t]*func \w+\(.*\) (?:->.*)?\{|^import Foundation|\bguard let "),
    ("kotlin", r"^[ \t]*(?:override )?fun \w"),
    ("typescript", r"^[ \t]*(?:export )?interface \w+|: (?:string|number|boolean)\b"),
    ("javascript", r"\bfunction\b|=>|^[ \t]*(?:const|let|var) \w|console\.log"),
    ("ruby", r"^[ \t]*end[ \t]*$|^[ \t]*(?:puts|require|attr_\w+) |\.each do\b"),
    ("bash", r"^#!.*sh\b|^[ \t]*fi$|\bthen$|^[ \t]*echo "),
    ("sql", r"(?i)^[ \t]*(?:select|insert into|update|create table|delete from)\s"),
    ("python", r"^[ \t]*(?:def|class) \w"),
    ("javascript", r"[{;][ \t]*$"),
    ("yaml", r"^[\w-]+:(?: .*)?$"),
)  # fmt: skip


def find_language(language: str, file_name: str = "", code: str = "") -> str:
    """One of NAMES: by its name, else by the file's, else by the first signs in `code`, else python."""
    name = language.strip().lower()
    name = _OTHER_NAMES.get(name, name)
    if name in NAMES:
        return name
    extension = file_name.lower().rsplit(".", 1)[-1] if "." in file_name else ""
    return _EXTENSIONS.get(extension) or guess_language(code) or "python"


def guess_language(code: str) -> str:
    """By signs in the first 4,000 characters; empty where there is none."""
    for name, sign in _SIGNS:
        if re.search(sign, code[:4_000], re.MULTILINE):
            return name
    return ""


@cache
def read_language(name: str) -> Language:
    """The record of one of NAMES."""
    text = files(__package__).joinpath("languages", f"{name}.yml").read_text(encoding="utf-8")
    return read_yaml(text, Language)


def read_yaml(text: str, kind: type[T]) -> T:
    """One of our own data files as checked records."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return msgspec.convert(yaml.load(text, Loader=loader), kind)  # noqa: S506 - both loaders are safe


def fill(template: str, **values: str) -> str:
    """The template with every `{name}` replaced, in one pass; other braces belong to the code."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), template)
