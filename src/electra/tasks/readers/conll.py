"""CoNLL's columns: a word and its tag a line, empty lines (or -DOCSTART-) between sentences.

Out: text put together from the words, `given["words"]` with the characters (start, end) of each word, and the spans that the
tags spell as `Mention`s. Columns are separated by tabs if the first line has one, else by spaces; characters such as the wide
space are words. Files of single characters (95 in 100 words or more), as Chinese ones are, join to the text that they were cut
from; else there is a space between two words, unless both neighbours are CJK characters.

The scheme of the tags is detected over the whole file in a first pass, see `tasks.schemes`; tags that are not legal in it are
repaired and counted. `plain` tags, one a word as part of speech, make every word a Mention, and `given["tagged"] = "words"`
says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from electra.contracts import Example, Mention, Reading
from electra.errors import ElectraError
from electra.tasks import schemes
from electra.tasks.readers.columns import TagColumns
from electra.tasks.readers.infer import known_header
from electra.tasks.readers.reading import Mended, reading
from electra.tasks.readers.source import LabelledFile
from electra.tasks.schemes import SchemeName

_BOUNDARY = "-DOCSTART-"
_SPACES = re.compile(" +")
_JOINED = re.compile("[\u2e80-\u312f\u3190-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]")
_SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".bioes", ".bmes")
_SINGLE_SHARE = 0.95
#: words that are looked at to see whether lines hold words and tags
_LOOKED_AT = 2000


@dataclass(frozen=True, slots=True)
class _Word:
    line: int
    word: str
    tag: str


def read(file: LabelledFile, columns: TagColumns) -> Reading:
    """The sentences of a CoNLL file.

    Raises:
        ElectraError: E-D304 a line of another number of columns, E-D334 a line without word or tag, E-D336 tags of a scheme
            beside others.
    """
    tagged, width = columns.tag != 0, _width(file)
    for column, name in ((columns.word, "word"), (columns.tag, "tag")):
        if column is not None and column > width:
            raise ElectraError("E-D303", file.at(1), f"no column {column} among {width}", f"set columns.{name} to one of these")
    scheme = (columns.scheme or _detected(file, columns)) if tagged else None
    joined = _of_characters(file, columns)
    repaired = Mended(what=f"tags that {scheme} does not allow repaired")
    notes = [_note(columns, width, scheme, joined)]
    return reading(str(file.path), _examples(file, columns, scheme, joined, repaired), notes, repaired)


def looks_like(file: LabelledFile) -> bool | None:
    """Whether the lines of `file` are words and tags; None where the last column leaves it open.

    They are if the suffix says so, or if all have the same number of columns, two or more, and the last one is a tag of a
    scheme, or one of few (then words must be without spaces within).
    """
    if file.suffix in _SUFFIXES:
        return True
    separator, width, spaced, lasts = _separator(file), 0, False, list[str]()
    for _, line in file.lines():
        if not line.strip() or line.startswith(_BOUNDARY):
            continue
        cells = separator.split(line)
        width = width or len(cells)
        header = not lasts and known_header(cells) and schemes.parse(cells[-1]) is None  # "Title", "O" are a word and its tag
        if len(cells) != width or width < 2 or header:
            return False
        spaced = spaced or " " in cells[0]
        lasts.append(cells[-1])
        if len(lasts) == _LOOKED_AT:
            break
    if len(lasts) < 2:
        return False
    if all(schemes.parse(tag) for tag in lasts) or (not spaced and len(set(lasts)) <= len(lasts) // 10):
        return True
    return None if len(lasts) > 2 and not spaced else False


def _note(columns: TagColumns, width: int, scheme: SchemeName | None, joined: bool) -> str:
    tag = "no tags" if scheme is None else f"tag = {columns.tag or width} of {width}, scheme {scheme}"
    how = "characters joined" if joined else "words joined by spaces, but for CJK neighbours"
    return f"conll; columns: word = {columns.word or 1}, {tag}; {how}"


def _separator(file: LabelledFile) -> re.Pattern[str]:
    first = next((line for _, line in file.lines() if line.strip()), "")
    return re.compile("\t") if "\t" in first else _SPACES


def _width(file: LabelledFile) -> int:
    separator = _separator(file)
    lines = (line for _, line in file.lines() if line.strip() and not line.startswith(_BOUNDARY))
    first = next(lines, None)
    if first is None:
        raise ElectraError("E-D307", str(file.path), "holds no rows", "give a file with at least one")
    return len(separator.split(first.rstrip(" ")))


def _sentences(file: LabelledFile, columns: TagColumns) -> Iterator[list[_Word]]:
    separator, width, words = _separator(file), _width(file), list[_Word]()
    place_word, place_tag = (columns.word or 1) - 1, (width if columns.tag is None else columns.tag) - 1
    for number, line in file.lines():
        if not line.strip() or line.startswith(_BOUNDARY):
            if words:
                yield words
            words = []
            continue
        cells = separator.split(line.rstrip(" "))
        if len(cells) != width:
            raise ElectraError("E-D304", file.at(number), f"{len(cells)} columns where the first line has {width}",
                               "write as many columns a line, a word and its tag among them")  # fmt: skip
        word, tag = cells[place_word], cells[place_tag].strip() if place_tag >= 0 else ""
        if not word or (place_tag >= 0 and not tag):
            raise ElectraError("E-D334", file.at(number), f"a line without {'tag' if word else 'word'}: {line[:60]!r}",
                               "write a word and its tag, or an empty line between sentences")  # fmt: skip
        words.append(_Word(number, word, tag))
    if words:
        yield words


def _detected(file: LabelledFile, columns: TagColumns) -> SchemeName:
    found = schemes.detect([word.tag for word in sentence] for sentence in _sentences(file, columns))
    if found.scheme is not None:
        return found.scheme
    other = found.others[-1]
    line = next(word.line for sentence in _sentences(file, columns) for word in sentence if word.tag == other)
    raise ElectraError("E-D336", file.at(line), f"tag {other!r} is of no scheme, but others are, as B-X or I-X",
                       'mend the tag, or set columns.scheme = "plain" if each tag is one of a word')  # fmt: skip


def _of_characters(file: LabelledFile, columns: TagColumns) -> bool:
    words = single = 0
    for sentence in _sentences(file, columns):
        words += len(sentence)
        single += sum(len(word.word) == 1 for word in sentence)
    return single >= _SINGLE_SHARE * words


def _examples(
    file: LabelledFile, columns: TagColumns, scheme: SchemeName | None, joined: bool, repaired: Mended
) -> Iterator[Example]:
    for sentence in _sentences(file, columns):
        text, places = join([word.word for word in sentence], joined)
        given: dict[str, object] = {"words": places}
        target = None
        if scheme is not None:
            tags = [word.tag for word in sentence]
            for place in schemes.repairs(tags, scheme):
                repaired.add(f"{file.at(sentence[place].line)} ({tags[place]})")
            spans = schemes.decode(tags, scheme)
            target = tuple(
                Mention(start=places[first][0], end=places[behind - 1][1], label=label) for first, behind, label in spans
            )
            given |= {"tagged": "words"} if scheme == "plain" else {}
        yield Example(text=text, target=target, where=file.at(sentence[0].line), given=given)


def join(words: Sequence[str], joined: bool) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text that `words` make, and where each stands in it.

    Args:
        words: non-empty.
        joined: without spaces; else with one between two words, unless both neighbours are CJK characters.
    """
    parts, places, length, before = list[str](), list[tuple[int, int]](), 0, ""
    for word in words:
        if parts and not joined and not (_JOINED.match(before) and _JOINED.match(word[0])):
            parts.append(" ")
            length += 1
        places.append((length, length + len(word)))
        parts.append(word)
        length, before = length + len(word), word[-1]
    return "".join(parts), tuple(places)
