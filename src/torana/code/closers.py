"""Answers that close what the editor has closed already: it writes `)` behind the cursor with the `(` before it."""

import re

from torana.code.syntax import replace_strings

_PAIRS = {")": "(", "]": "[", "}": "{"}
_OPENERS = frozenset(_PAIRS.values())
_QUOTES = ('"', "'", "`")
_MAX_TYPED = 1_000
_CLOSER = re.compile(r"[)\]}]|(?:end|fi|done|esac|endif)\b|</[\w.:-]*")


def drop_closed_again(text: str, prefix: str, suffix: str) -> str:
    """`text` up to where it closes once more what the rest of the cursor's line closes.

    Only what was opened in that line counts: brackets, or the quote of a text that the cursor stands in.
    """
    rest = suffix[: suffix.find("\n")] if "\n" in suffix else suffix
    begun = rest[:1]
    if (begun not in _PAIRS and begun not in _QUOTES) or begun not in text:
        return text
    typed = replace_strings(prefix[prefix.rfind("\n") + 1 :][-_MAX_TYPED:], "")
    if begun in _QUOTES:
        return _without_quote(text, begun) if begun in typed and rest[1:2] != begun else text
    if any(quote in typed for quote in _QUOTES):
        return text
    opened: list[str] = []
    for letter in typed:
        if letter in _OPENERS:
            opened.append(letter)
        elif letter in _PAIRS and opened:
            opened.pop()
    return _without_bracket(text, opened, rest)


def drop_closed_below(text: str, prefix: str, suffix: str) -> str:
    """`text` up to the line that closes the block around the cursor, where the code behind the cursor closes it too.

    It is the next line there that has text, and stands further left than what the cursor's line has or begins.
    """
    if "\n" not in text or suffix[: suffix.find("\n")].strip():
        return text
    below = suffix.lstrip()
    closer = _CLOSER.match(below)
    if closer is None:
        return text
    blank = suffix[: len(suffix) - len(below)]
    indent = blank[blank.rfind("\n") + 1 :]
    typed = prefix[prefix.rfind("\n") + 1 :]
    if len(indent) >= len(typed) - len(typed.lstrip()) + typed.rstrip().endswith(("(", "[", "{")):
        return text
    end = text.find(f"\n{indent}{closer[0]}")
    return text[:end].rstrip() if end >= 0 else text


def _without_quote(text: str, quote: str) -> str:
    """In one line: a second quote begins another text, which the editor's quote ends."""
    bare = text.replace("\\\\", "  ").replace(f"\\{quote}", "  ").partition("\n")[0]
    if not bare.count(quote) % 2:
        return text
    end, depth, is_inside = 0, 0, True
    for position, letter in enumerate(bare):
        if letter == quote:
            is_inside = not is_inside
            if not is_inside and not depth:
                end = position
        elif not is_inside:
            depth += (letter in _OPENERS) - (letter in _PAIRS)
    return text[:end]


def _without_bracket(text: str, opened: list[str], rest: str) -> str:
    closed = 0
    for letter in rest:
        if closed == len(opened) or _PAIRS.get(letter) != opened[-1 - closed]:
            break
        closed += 1
    if not closed:
        return text
    stack, others, end = list(opened), 0, -1
    # Same length, so that positions stay true.
    for position, letter in enumerate(replace_strings(text, " ")):
        if letter in _OPENERS:
            others += _is_other(letter, len(stack), opened)
            stack.append(letter)
        elif letter in _PAIRS:
            if closed <= len(stack) <= len(opened) and not others:
                end = position
            if not stack:
                break
            if stack[-1] != _PAIRS[letter]:
                return text  # no brackets, or none that could be told apart
            others -= _is_other(stack.pop(), len(stack), opened)
    else:
        if len(stack) >= closed and not others:
            return text
    return text[:end] if end >= 0 else text


def _is_other(letter: str, depth: int, opened: list[str]) -> bool:
    """Whether it takes the place of an opener of the line, and is another one."""
    return depth < len(opened) and letter != opened[depth]
