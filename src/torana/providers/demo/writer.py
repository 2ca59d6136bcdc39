"""Writes on from a cursor, token by token, as n-grams suggest, under the rules of brackets and indentation."""

import re
from collections.abc import Iterator

from torana.providers.demo.cursor import (
    Cursor,
    block_end,
    has_body_below,
    indent_of,
    is_closed_below,
    open_brackets,
)
from torana.providers.demo.grams import DEEPER, PARAGRAPH, SAME, SHALLOWER, Grams, Guess, read_tokens

HISTORY_CHARS = 2_000
MAX_LINES = 6
MAX_STARTS = 6
MAX_LINE_TOKENS = 24
SURE_MATCH = 3
"""Tokens that must agree before more than the current line is written."""

_WORD_AT_END = re.compile(r"[$@]{0,2}\w+\Z")
_LEAVES = re.compile(r"[ \t]*(?:return|break|continue|raise|throw|pass|next|exit)\b")
_STATEMENT = re.compile(r"[$@]*[^\W\d]|\}")
_ENDS = frozenset({"}", "end", "fi", "done", "esac"})
_QUOTES = frozenset("\"'`")
_CLOSING = frozenset(")]}")


class Writer:
    """Writes from one first token on, until the line, or a block that is surely known, ends."""

    def __init__(self, cursor: Cursor, grams: Grams) -> None:
        self.cursor = cursor
        self.grams = grams
        self.is_spaced = cursor.line[-1:].isspace()
        tail = cursor.before[-HISTORY_CHARS:]
        self.history = [word for word, _ in read_tokens(tail)]
        self.partial = ""
        self.is_in_prose = not cursor.language.sample or cursor.line.strip().startswith(cursor.language.comment)
        # What a list or call over several lines waits for; braces of blocks are no such thing.
        waiting, self.quote = open_brackets(tail if cursor.is_at_line_start else cursor.line)
        self.closer = waiting[-1] if waiting else ""
        is_list = cursor.is_at_line_start and (self.closer != "}" or cursor.language.style == "indent")
        self.waits_for = self.closer if is_list else ""
        word = _WORD_AT_END.search(cursor.line)
        self.lead = ""
        if cursor.is_at_line_start:
            step = self._break_before_cursor()
            self.history.append(step)
            # At the very start of a line the indentation is ours to write.
            self.lead = "" if cursor.line or step == PARAGRAPH else self._indent_after(cursor.above, step)
        elif word is not None and not re.match(r"\w", cursor.rest):
            self.partial = word[0]

    def _break_before_cursor(self) -> str:
        """The step that the cursor's line is from the one above; guessed where it has no indentation yet."""
        cursor = self.cursor
        if cursor.before.rstrip(" \t").endswith("\n\n"):
            return PARAGRAPH
        here, above = len(cursor.line), len(indent_of(cursor.above))
        if not cursor.line:
            opens = block_end(cursor.language, cursor.above) is not None
            return DEEPER if opens else SHALLOWER if above and _LEAVES.match(cursor.above) else SAME
        return DEEPER if here > above else SHALLOWER if here < above else SAME

    def starts(self) -> Iterator[Guess]:
        """What may stand right at the cursor; for a begun word the missing part of it."""
        if self.partial:
            yield from self._rests_of_word()
        guesses = [guess for guess in self.grams.follow(self.history) if self._may_start(guess)][:MAX_STARTS]
        if self.is_in_prose or self.waits_for:
            guesses = [guess for guess in guesses if guess.matched > 1]
        if self.cursor.is_at_line_start and guesses and guesses[0].matched < 2:
            # Only the line break agrees; then rather a statement than the inside of one.
            guesses.sort(key=lambda guess: not _STATEMENT.match(guess.word))
        if guesses and guesses[0].word.startswith("\n") and not self.cursor.rest:
            yield guesses[0]
        for guess in guesses:
            if not guess.word.startswith("\n"):
                needs_space = guess.is_spaced and not self.is_spaced and not self.cursor.is_at_line_start
                yield guess._replace(word=" " + guess.word) if needs_space else guess

    def _may_start(self, guess: Guess) -> bool:
        """A bracket closes only what is open, and a quotation does not begin right behind a word."""
        if guess.word in _CLOSING and not self.quote:
            return guess.word == self.closer
        is_behind_word = re.search(r"[\w)\]]\Z", self.cursor.line) is not None and not guess.is_spaced
        return self.quote == guess.word or guess.word not in _QUOTES or not is_behind_word

    def _rests_of_word(self) -> Iterator[Guess]:
        partial = self.partial
        is_whole = partial in self.grams.keywords or len(self.grams.places.get(partial, ())) > 1
        longer = self.grams.follow(self.history[:-1], begins=partial)
        if longer and (not is_whole or longer[0].matched > SURE_MATCH):
            yield Guess(longer[0].word[len(partial) :], False, longer[0].matched)
        if not is_whole and not partial.isdigit():
            word = self.grams.name_beginning_with(partial) or _begin_keyword(partial, self.grams.keywords)
            if word:
                yield Guess(word[len(partial) :], False, 0)

    def write(self, start: Guess) -> str:
        """`start` and what follows it."""
        lines, history = [self.cursor.line], list(self.history)
        is_next_line = start.word.startswith("\n")
        if not is_next_line:
            if self.partial and re.match(r"\w", start.word):
                history[-1] = self.partial + start.word
            else:
                history.append(start.word.strip(" "))
            lines[0] += self.lead
            self._append(lines, start.word)
            self._finish_line(lines, history, start)
        if not self.cursor.rest:
            self._continue_below(lines, history, is_asked=is_next_line)
            self._end_blocks(lines)
        return "\n".join(lines)[len(self.cursor.line) :]

    def _continue_below(self, lines: list[str], history: list[str], *, is_asked: bool) -> None:
        """Further lines of the block that was begun, while surely known; with `is_asked` the first in any case."""
        base = len(self.lead or indent_of(self.cursor.line))
        while len(lines) < MAX_LINES:
            needed = 0 if is_asked and len(lines) == 1 else SURE_MATCH
            step = self._sure_guess(history, needed)
            if step is None or step.word == PARAGRAPH or not step.word.startswith("\n"):
                return
            first = self._sure_guess([*history, step.word], needed)
            indent = self._indent_after(lines[-1], step.word)
            if first is None or first.word.startswith("\n") or len(indent) < base:
                return
            is_end = first.word in _ENDS and len(indent) == base
            if len(indent) == base and (not is_end or len(lines) == 1):
                return
            lines.append(indent + first.word)
            history += [step.word, first.word]
            self._finish_line(lines, history, first)
            if is_end or lines[-1] == lines[-2]:
                return

    def _sure_guess(self, history: list[str], needed: int) -> Guess | None:
        following = self.grams.follow(history)
        return following[0] if following and following[0].matched >= needed else None

    def _finish_line(self, lines: list[str], history: list[str], last: Guess) -> None:
        """Token by token to the line's end; brackets balance within the line."""
        for _ in range(MAX_LINE_TOKENS):
            following = self.grams.follow(history)
            if not following:
                break
            guess = following[0]
            if guess.word.startswith("\n") or (
                guess.matched < 2 and last.matched > guess.matched and _is_whole(lines[-1])
            ):
                break
            if self.cursor.rest and len(lines) == 1 and self.cursor.rest.startswith(guess.word):
                break
            waiting, quote = open_brackets("\n".join(lines))
            if not quote and guess.word in _CLOSING and (not waiting or waiting[-1] != guess.word):
                break
            if waiting and waiting[-1] == ")" and guess.word == "=" and guess.is_spaced:
                break  # an assignment elsewhere; within brackets it is an argument
            self._append(lines, f" {guess.word}" if guess.is_spaced else guess.word)
            history.append(guess.word)
            last = guess
        self._close_line(lines)

    def _append(self, lines: list[str], text: str) -> None:
        lines[-1] += text.lstrip() if lines[-1][-1:].isspace() or not lines[-1] else text

    def _close_line(self, lines: list[str]) -> None:
        """Close what this line has opened, but for a block, and for what the rest of the line closes."""
        waiting, quote = open_brackets(lines[-1])
        is_block = bool(waiting) and waiting[-1] == "}" and block_end(self.cursor.language, lines[-1]) is not None
        if is_block:
            return
        given = [letter for letter in self.cursor.rest if letter in _CLOSING] if len(lines) == 1 else []
        if quote and quote not in self.cursor.rest:
            lines[-1] += quote
        while given and waiting:
            given.pop()
            waiting.pop(0)
        lines[-1] = lines[-1].rstrip(" ") + "".join(reversed(waiting))
        mark = self.cursor.language.end_mark
        code = lines[-1].rstrip()
        if mark and waiting and not self.cursor.rest and code.endswith(")") and _is_call(code):
            lines[-1] = code + mark

    def _indent_after(self, line: str, step: str) -> str:
        indent, unit = indent_of(line), self.cursor.indent_unit
        if step == DEEPER:
            return indent + unit
        for _ in range(step.count("<")):
            indent = indent[: -len(unit)] if indent.endswith(unit) else ""
        return indent

    def _end_blocks(self, lines: list[str]) -> None:
        """Give every block that was opened a body where it needs one, and its end unless it is there."""
        cursor, language = self.cursor, self.cursor.language
        waiting: list[tuple[str, str, str]] = []
        for line in lines:
            if waiting and waiting[-1][1] and line.strip().startswith(waiting[-1][1]):
                waiting.pop()
            end = block_end(language, line)
            if end is not None:
                # A block within a call: `each((item) => {` ends with `});`.
                outer = open_brackets(line)[0][:-1] if end == "}" else []
                tail = "".join(reversed(outer)) + (language.end_mark if outer else "")
                waiting.append((indent_of(line), end, tail))
        while waiting:
            indent, end, tail = waiting.pop()
            is_bare = len(indent_of(lines[-1])) <= len(indent)
            if is_bare and has_body_below(cursor, indent):
                return
            if is_bare and language.empty_body:
                lines.append(indent + cursor.indent_unit + language.empty_body)
            if end and not is_closed_below(cursor, indent, end):
                lines.append(indent + end + tail)

    def last_resorts(self) -> Iterator[str]:
        """Syntax that nearly always may follow, for code in which nothing was found."""
        cursor, language = self.cursor, self.cursor.language
        if cursor.rest or not language.sample:
            return
        if self.waits_for:
            if not cursor.below.strip().startswith(self.waits_for):
                yield self.waits_for
            return
        statement = language.say.replace("{text}", "ready") or language.sample.split("\n", 1)[0]
        if cursor.is_at_line_start:
            indent, opens = indent_of(cursor.above), block_end(language, cursor.above)
            is_open = opens and not has_body_below(cursor, indent) and not is_closed_below(cursor, indent, opens)
            yield f"{self.lead}{statement}\n{indent}{opens}\n" if is_open else self.lead + statement
        elif language.is_data:
            # Between a name and its value: `name: value`.
            sign = language.assign.partition("{name}")[2].partition("{value}")[0]
            yield language.end_mark if sign in cursor.line else sign
        elif re.search(r"[\w)\]]\Z", cursor.line) and not self.is_in_prose:
            yield language.end_mark or "()"
            yield " = "
        yield f"\n{indent_of(cursor.line)}{statement}"


def _is_whole(line: str) -> bool:
    """The line might end here: nothing is open, and its last token wants no other."""
    return open_brackets(line) == ([], "") and re.search(r"[\w)\]};\"']\Z", line) is not None


def _is_call(code: str) -> bool:
    return re.match(r"\s*[\w.$>:-]+\(", code) is not None and not re.match(
        r"\s*(?:if|for|while|switch|catch|function)\b", code
    )


def _begin_keyword(begins: str, keywords: frozenset[str]) -> str:
    return min((word for word in keywords if word.startswith(begins) and len(word) > len(begins)), default="")
