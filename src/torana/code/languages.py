"""Which language a file is in: by its name, else by what the editor says (contract 6.5)."""

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class _Language:
    name: str
    extensions: str
    """Separated by spaces, without the dot."""
    editor_ids: str = ""
    """Further ids and display names, lower case, separated by `|`; the name itself always counts."""
    file_names: str = ""
    """Whole file names, lower case, separated by spaces."""


# VS Code's ids first, then the names that editors display.
_LANGUAGES = (
    _Language("bash", "sh bash zsh ksh", "shellscript|shell|shell script|sh|zsh|bash", ".bashrc .zshrc .profile"),
    _Language("c", "c h"),
    _Language("clojure", "clj cljs cljc edn"),
    _Language("cmake", "cmake", "", "cmakelists.txt"),
    _Language("cpp", "cc cpp cxx c++ hh hpp hxx ipp", "c++|cuda-cpp"),
    _Language("csharp", "cs csx", "c#|c sharp"),
    _Language("css", "css"),
    _Language("dart", "dart"),
    _Language("dockerfile", "dockerfile", "docker", "dockerfile containerfile"),
    _Language("elixir", "ex exs"),
    _Language("erlang", "erl hrl"),
    _Language("fsharp", "fs fsi fsx", "f#"),
    _Language("go", "go", "golang"),
    _Language("graphql", "graphql gql"),
    _Language("groovy", "groovy gradle", "", "jenkinsfile"),
    _Language("haskell", "hs lhs"),
    _Language("hcl", "tf tfvars hcl", "terraform|terraform-vars|opentofu"),
    _Language("html", "html htm xhtml"),
    _Language("java", "java"),
    _Language("javascript", "js jsx mjs cjs", "javascriptreact|javascript react|javascript jsx|js|jsx"),
    _Language("json", "json jsonc json5", "jsonc|json with comments"),
    _Language("julia", "jl"),
    _Language("kotlin", "kt kts"),
    _Language("lua", "lua"),
    _Language("make", "mk mak", "makefile", "makefile gnumakefile"),
    _Language("markdown", "md markdown mdx"),
    _Language("objc", "m mm", "objective-c|objective-cpp|objective-c++"),
    _Language("ocaml", "ml mli"),
    _Language("perl", "pl pm", "perl6"),
    _Language("php", "php phtml"),
    _Language("powershell", "ps1 psm1 psd1"),
    _Language("proto", "proto", "proto3|protocol buffers|protobuf"),
    _Language("python", "py pyi pyw", "jupyter", "sconstruct"),
    _Language("r", "r rmd"),
    _Language("ruby", "rb rake gemspec ru", "", "gemfile rakefile vagrantfile podfile"),
    _Language("rust", "rs"),
    _Language("scala", "scala sc sbt"),
    _Language("scss", "scss sass", "sass"),
    _Language("solidity", "sol"),
    _Language("sql", "sql", "postgres|plsql|pgsql|mysql"),
    _Language("svelte", "svelte"),
    _Language("swift", "swift"),
    _Language("toml", "toml"),
    _Language("tsx", "tsx", "typescriptreact|typescript react|typescript jsx"),
    _Language("typescript", "ts mts cts", "ts"),
    _Language("vue", "vue", "vue-html"),
    _Language("xml", "xml xsd xsl svg"),
    _Language("yaml", "yaml yml", "dockercompose|github-actions-workflow|gitlab-ci"),
    _Language("zig", "zig"),
)

EXTENSIONS = frozenset(extension for language in _LANGUAGES for extension in language.extensions.split())
"""Every file extension that is known, lower case, without the dot."""

_BY_EXTENSION = {extension: language.name for language in _LANGUAGES for extension in language.extensions.split()}
_BY_FILE_NAME = {name: language.name for language in _LANGUAGES for name in language.file_names.split()}
_BY_EDITOR_ID = {
    editor_id: language.name
    for language in _LANGUAGES
    for editor_id in (language.name, *language.editor_ids.split("|"))
    if editor_id
}
# The grammar's name and the language's differ; clients are told the language.
_SPOKEN = {"tsx": "typescript"}

LANGUAGES = frozenset(_SPOKEN.get(language.name, language.name) for language in _LANGUAGES)
"""Every name that `guess_language` can give."""
EDITOR_IDS = frozenset(_BY_EDITOR_ID)
"""Every id and name that editors have for them, lower case."""


@lru_cache(maxsize=4096)
def guess_language(file_name: str, editor_language: str = "") -> str:
    """Lower-case language name such as `python`; empty when neither argument is known."""
    found = grammar_name(file_name, editor_language)
    return _SPOKEN.get(found, found)


@lru_cache(maxsize=4096)
def grammar_name(file_name: str, editor_language: str = "") -> str:
    """As `guess_language`, but as fine as grammars are: `tsx` is not `typescript`."""
    name = _last_part(file_name)
    return (
        _BY_FILE_NAME.get(name)
        or _BY_EXTENSION.get(extension_of(file_name))
        # `Dockerfile.dev`: the name counts, whatever follows it.
        or _BY_FILE_NAME.get(name.split(".", 1)[0])
        or _BY_EDITOR_ID.get(editor_language.strip().lower(), "")
    )


def extension_of(file_name: str) -> str:
    """Lower case, without the dot; empty where there is none."""
    name = _last_part(file_name)
    return name.rsplit(".", 1)[-1] if "." in name else ""


def _last_part(file_name: str) -> str:
    return file_name.strip().lower().replace("\\", "/").rsplit("/", 1)[-1]
