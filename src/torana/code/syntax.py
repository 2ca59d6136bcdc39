"""Where a block of code ends, and whether code parses: syntax trees where there is a grammar.

Without one, and where a tree is not to be had, brackets and indentation have to do.
"""

import re
from typing import TYPE_CHECKING

from torana.code.trees import Trees

if TYPE_CHECKING:
    from tree_sitter import Node

PREFIX_CHARS = 4_000
SUFFIX_CHARS = 1_000

# Names of grammar nodes that hold a body, or are one.
_BLOCK = re.compile(
    r"(^|_)(block|body|compound_statement|declaration_list|enumerator_list|variant_list|fields_definition)$"
    r"|^(function|method|class|constructor)_(definition|declaration|item)$"
    r"|^(method|singleton_method|class|module|impl_item)$"
)
_BODY = re.compile(r"(^|_)(block|body)$")
# What ends a block, or the statement that it is the last part of, and belongs to no node but the one around.
_LAST_WORDS = frozenset({"end", "block_end", ";", ","})
# A line that begins a top-level item: a tree that starts there is sound although the file's head is missing.
_TOP_LEVEL = re.compile(r"^(?=[A-Za-z_@#<])", re.MULTILINE)
# Languages whose blocks end in a brace and nowhere else.
_BRACED = frozenset({"c", "go", "javascript", "rust", "tsx", "typescript"})
_PYTHON_HEAD = re.compile(r"(?:async|case|class|def|elif|else|except|finally|for|if|match|try|while|with)\b")
_MAX_DEPTH = 200
"""Columns of indentation that are told apart; patterns are kept, so there must not be ever more."""
_OPENING = "([{"
_CLOSING = ")]}"
_QUOTE = re.compile(r"[\"'`]")
_STRINGS = {
    '"': re.compile(r'"(?:[^"\\\n]|\\.)*+"'),
    "'": re.compile(r"'(?:[^'\\\n]|\\.)*+'"),
    "`": re.compile(r"`(?:[^`\\]|\\.)*+`", re.DOTALL),
}
_BRACE = re.compile("[{}]")
_REST_OF_CALL = re.compile(r"(?:[)\];,]|\(\))*")
"""What may stand behind a block in its last line."""
_NO_COMMENT_AFTER = "${:"
"""`$#`, `${#` and `https://`."""


def end_of_block(prefix: str, text: str, suffix: str, grammar: str, trees: Trees | None = None) -> int | None:
    """Where in `text` the smallest block ends that holds the cursor; None: not within `text`, or unknown.

    The cursor stands between `prefix` and `text`. Known languages only (a non-empty `grammar`).
    """
    if not grammar or not _may_end_block(prefix, text, grammar):
        return None
    return end_in_tree(prefix, text, suffix, grammar, trees)


def end_in_tree(prefix: str, text: str, suffix: str, grammar: str, trees: Trees | None = None) -> int | None:
    """As `end_of_block`, without a look at the lines before."""
    head = _shorten(prefix)
    tree = (trees or Trees()).make(grammar, head + text + suffix[:SUFFIX_CHARS])
    if tree is None:
        return _end_of_block_lexically(prefix, text, grammar)
    cursor_byte = len(head.encode("utf-8", "replace"))
    node = tree.root_node.descendant_for_byte_range(cursor_byte, cursor_byte)
    while node is not None and not _is_block_around(node, cursor_byte):
        node = node.parent
    if node is None or node.parent is None or node.has_error:
        return None
    text_bytes = text.encode("utf-8", "replace")
    length = _end_with_line(node) - cursor_byte
    return len(text_bytes[:length].decode("utf-8", "ignore")) if length < len(text_bytes) else None


def _may_end_block(prefix: str, text: str, grammar: str) -> bool:
    """False where a look at the lines shows that no block around the cursor ends before `text` does.

    Most answers stay in the block that they begin in, and a look costs a hundredth of a tree.
    """
    if grammar in _BRACED:
        return "}" in text.rstrip()[:-1]
    if grammar != "python" or "\t" in text or "#" in text:
        return True  # comments may stand at any depth
    typed = prefix[prefix.rfind("\n") + 1 :]
    begun = typed.lstrip(" ")
    if begun.startswith("\t"):
        return True
    depth = len(typed) - len(begun)
    if begun:
        # The block of a compound statement whose head ends in the cursor's line ends at the next line like it.
        depth += _PYTHON_HEAD.match(begun + text[:10]) is not None or begun[0] in _CLOSING
    elif (first := text.lstrip(" "))[:1] in ("\n", "\r", ""):
        return bool(first.strip())
    else:
        depth += len(text) - len(first) + (first[0] in _CLOSING)
    return depth > 0 and re.search(rf"\n {{0,{min(depth, _MAX_DEPTH) - 1}}}\S", text) is not None


def begins_comment(prefix: str, text: str, suffix: str, grammar: str, trees: Trees | None = None) -> bool:
    """True where `text`, which looks like a comment, is one at the cursor.

    Within a string, `#{name}` is a value and `//host` a part of an address.
    """
    head, blank = _shorten(prefix), text[: len(text) - len(text.lstrip())]
    tree = (trees or Trees()).make(grammar, head + text + suffix[:SUFFIX_CHARS]) if grammar else None
    if tree is None:
        typed = replace_strings(prefix[prefix.rfind("\n") + 1 :], "")
        return "\n" in blank or not (_QUOTE.search(typed) or (not blank and typed and typed[-1] in _NO_COMMENT_AFTER))
    start_byte = len((head + blank).encode("utf-8", "replace"))
    node = tree.root_node.descendant_for_byte_range(start_byte, start_byte + 1)
    while node is not None and "comment" not in node.type.lower():
        node = node.parent
    return node is not None


def adds_errors(prefix: str, before: str, after: str, suffix: str, grammar: str, trees: Trees | None = None) -> bool:
    """True where the code parses worse, or may, with `after` at the cursor than with `before`."""
    head, tail = _shorten(prefix), suffix[:SUFFIX_CHARS]
    trees = trees or Trees()
    old = trees.make(grammar, head + before + tail) if grammar else None
    new = trees.make(grammar, head + after + tail) if old is not None else None
    if old is None or new is None:
        return open_brackets(after) > 0
    if _count_errors(new.root_node) > _count_errors(old.root_node):
        return True
    # Among other errors, as where the file is cut off, one more may not be told as one.
    return new.root_node.has_error and open_brackets(after) > open_brackets(before)


def open_brackets(text: str) -> int:
    """How many brackets `text` leaves open; texts within quotes do not count."""
    depth = 0
    for letter in replace_strings(text, ""):
        if letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth = max(depth - 1, 0)
    return depth


def replace_strings(text: str, letter: str) -> str:
    """`text` with `letter` for each one of its strings'. A quote that nothing closes is a letter like others."""
    pieces: list[str] = []
    unclosed = dict.fromkeys(_STRINGS, 0)
    """Up to where such quotes are known to be closed by none, so that a text is read once, whatever it is."""
    done = 0
    for quote in _QUOTE.finditer(text):
        kind, at = quote[0], quote.start()
        if at < done or at < unclosed[kind]:
            continue
        string = _STRINGS[kind].match(text, at)
        if string is None:
            line_end = text.find("\n", at)
            unclosed[kind] = len(text) if kind == "`" or line_end < 0 else line_end
            continue
        pieces += text[done:at], letter * (string.end() - at)
        done = string.end()
    pieces.append(text[done:])
    return "".join(pieces)


def _shorten(prefix: str) -> str:
    if len(prefix) <= PREFIX_CHARS:
        return prefix
    kept = prefix[-PREFIX_CHARS:]
    start = _TOP_LEVEL.search(kept, kept.find("\n") + 1)
    return kept[start.start() :] if start else kept


def _is_block_around(node: "Node", cursor_byte: int) -> bool:
    if not node.is_named or not _BLOCK.search(node.type):
        return False
    if node.start_byte < cursor_byte:
        return True
    # The body of an indented language begins with its first statement, which may stand at the cursor.
    owner = node.parent
    return bool(_BODY.search(node.type)) and owner is not None and owner.start_byte < cursor_byte


def _end_with_line(block: "Node") -> int:
    """Where the block ends, or in the same line what it is the last part of: the call, say, with its `});`."""
    node, row = block, block.end_point.row
    while (outer := node.parent) is not None and outer.parent is not None and outer.end_point.row == row:
        is_longer = outer.end_byte > block.end_byte
        if outer.has_error or (is_longer and _BLOCK.search(outer.type)):
            break
        node = outer
    follower = node.next_sibling
    return follower.end_byte if follower is not None and follower.type in _LAST_WORDS else node.end_byte


def _count_errors(node: "Node") -> int:
    if not node.has_error:
        return 0
    waiting, count = [node], 0
    while waiting:
        found = waiting.pop()
        count += found.is_error or found.is_missing
        waiting.extend(child for child in found.children if child.has_error)
    return count


def _end_of_block_lexically(prefix: str, text: str, grammar: str) -> int | None:
    indent = prefix.rpartition("\n")[2]
    if grammar != "python":
        return _end_of_brace(indent, text)
    if not indent or indent.strip():
        return None
    position = 0
    for number, line in enumerate(text.splitlines(keepends=True)):
        width = len(line) - len(line.lstrip(" \t"))
        if number > 0 and line.strip() and width < len(indent):
            return position
        position += len(line)
    return None


def _end_of_brace(typed: str, text: str) -> int | None:
    depth, told = 0, -2
    # Same length, so that positions stay true.
    bare = replace_strings(text, " ")
    for brace in _BRACE.finditer(bare):
        depth += 1 if brace[0] == "{" else -1
        if depth >= 0:
            continue
        line = bare.rfind("\n", 0, brace.start())
        if line != told and not (typed if line < 0 else "").strip() and not bare[line + 1 : brace.start()].strip():
            rest = _REST_OF_CALL.match(bare, brace.end())
            end = rest.end() if rest else brace.end()
            return end if end < len(text) else None
        # Behind other code it may close a mapping as well, or a name within a text.
        depth, told = 0, line
    return None
