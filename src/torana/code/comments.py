"""Whether a piece of code is nothing but comments; lexical, so it needs no whole file around it."""

import re

_HASH = r"\#[^\n]*"
_SLASHES = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
_DASHES = r"--[^\n]*"
_TAGS = r"<!--.*?(?:-->|\Z)"

_SYNTAX = {
    _HASH: "bash cmake dockerfile elixir graphql julia make perl powershell python r ruby toml yaml",
    _SLASHES: "c cpp csharp dart fsharp go groovy java javascript kotlin objc proto rust scala scss solidity swift"
    " typescript zig",
    f"{_HASH}|{_SLASHES}": "hcl",
    # `#[` opens an attribute, not a comment.
    rf"\#(?!\[)[^\n]*|{_SLASHES}": "php",
    rf"{_DASHES}|/\*.*?(?:\*/|\Z)": "sql",
    rf"--\[\[.*?(?:\]\]|\Z)|{_DASHES}": "lua",
    rf"\{{-.*?(?:-\}}|\Z)|{_DASHES}": "haskell",
    r"/\*.*?(?:\*/|\Z)": "css",
    _TAGS: "html xml svelte vue",
    r";[^\n]*": "clojure",
    r"%[^\n]*": "erlang",
}
_MARKS = ("//", "#", "*", "/*", "--", ";", "%")
_FURTHER_LINE = re.compile(r"\*(?:[\s*/]|\Z)")
_PIECES = {
    language: re.compile(rf"\s+|{syntax}", re.DOTALL) for syntax, names in _SYNTAX.items() for language in names.split()
}


def is_only_comments(text: str, language: str) -> bool:
    """True where `text` holds a comment and no code; False for blank text and unknown languages."""
    piece = _PIECES.get(language)
    if piece is None or not text.strip():
        return False
    position = 0
    while position < len(text):
        match = piece.match(text, position)
        if match is None:
            return False
        position = match.end()
    return True


def is_comment_line(line: str, language: str) -> bool:
    """True where `line`, which is told without its indentation, is a comment, or goes on with one of several lines.

    In an unknown language, all that is a comment anywhere.
    """
    piece = _PIECES.get(language)
    if piece is None:
        return line.startswith(_MARKS)
    return piece.match(line) is not None or (r"/\*" in piece.pattern and _FURTHER_LINE.match(line) is not None)
