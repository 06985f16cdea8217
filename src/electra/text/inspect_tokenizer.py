"""How well a tokenizer suits a text, script by script.

In: a tokenizer and texts. Out, for each script that the texts have:

    fertility   tokens per word; per character where the script puts no spaces between words
    unknown     share of its characters that stand within [UNK] tokens, and the most frequent of these
    lossy       share of its characters that do not come back when a text is encoded and decoded: unknown ones, but also
                capitals and accents where they are folded; named are those mostly lost, with what comes back

A token belongs to the script of its first character that is no space, a word to that of its first character; an accent that
stands alone to "Other", as digits, punctuation and symbols do. White space is left out. Characters are counted before and
after, line by line, and not aligned.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tokenizers as hf

from electra.text.boundaries import first_solid, starts_of_text
from electra.text.scripts import END, SCRIPTS, WITHOUT_SPACES, code_points, script_table
from electra.text.tokenizer import Tokenizer

#: how many unknown texts and lossy characters are named
_OFFENDERS = 5
_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class ScriptFigures:
    """What a tokenizer makes of one script.

    Args:
        script: its name; "Other" for what belongs to none.
        words: words that begin with it; 0 for scripts without spaces.
        characters: white space excepted.
        tokens: that begin with it.
        unknown, lossy: characters, see the module's docstring.
        unknown_texts: (text, occurrences), the most frequent first.
        lossy_characters: (character, what comes back, occurrences), the most frequent first.
    """

    script: str
    words: int
    characters: int
    tokens: int
    unknown: int
    lossy: int
    unknown_texts: tuple[tuple[str, int], ...]
    lossy_characters: tuple[tuple[str, str, int], ...]

    @property
    def unit(self) -> str:
        """What fertility is counted by."""
        return "character" if self.script in WITHOUT_SPACES else "word"

    @property
    def fertility(self) -> float:
        """Tokens per word, or per character."""
        return self.tokens / max(1, self.characters if self.script in WITHOUT_SPACES else self.words)


def inspect(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[ScriptFigures, ...]:
    """Figures of every script in `texts`, the one with most characters first."""
    tally = _Tally(tokenizer.unk_id)
    for begin in range(0, len(texts), _BATCH):
        batch = texts[begin : begin + _BATCH]
        encodings = tokenizer.encode_documents(batch)
        decoded = tokenizer.backend.decode_batch([encoding.ids for encoding in encodings])
        for text, encoding, back in zip(batch, encodings, decoded, strict=True):
            tally.add(text, encoding, back)
    order = np.argsort(-tally.characters, kind="stable").tolist()
    return tuple(tally.figures(number, tokenizer) for number in order if tally.characters[number])


class _Tally:
    """Counts by script, over all texts."""

    def __init__(self, unk_id: int) -> None:
        self._unk_id = unk_id
        self.characters, self.words, self.tokens, self.unknown = (np.zeros(len(SCRIPTS), dtype=np.int64) for _ in range(4))
        self.frequency, self.lost = Counter[str](), Counter[str]()
        self.unknown_texts = Counter[str]()

    def add(self, text: str, encoding: hf.Encoding, back: str) -> None:
        """One text, its tokens, and what is decoded from them."""
        here = Counter(text)
        for space in [character for character in here if character.isspace()]:
            del here[space]
        self.frequency.update(here)
        self.lost.update(here - Counter(unicodedata.normalize("NFC", back)))
        scripts = script_table()[np.minimum(code_points(text), END - 1)]
        solid = np.array([not character.isspace() for character in text], dtype=np.bool_)
        self.characters += _by_script(scripts[solid])
        self.words += _by_script(scripts[starts_of_text(text)[:-1] & solid])
        starts = first_solid(text)[[start for start, _ in encoding.offsets]] if len(encoding) else np.zeros(0, dtype=np.int64)
        self.tokens += _by_script(scripts[starts[starts < len(text)]])
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token == self._unk_id:
                self.unknown += _by_script(scripts[start:end][solid[start:end]])
                self.unknown_texts[text[start:end].strip()] += 1

    def figures(self, number: int, tokenizer: Tokenizer) -> ScriptFigures:
        unknown = [(text, count) for text, count in self.unknown_texts.items() if _script(text[:1]) == number]
        lost = [(character, count) for character, count in self.lost.items() if _script(character) == number]
        mostly = [(character, count) for character, count in lost if 2 * count > self.frequency[character]]
        return ScriptFigures(
            script=SCRIPTS[number],
            words=0 if SCRIPTS[number] in WITHOUT_SPACES else int(self.words[number]),
            characters=int(self.characters[number]),
            tokens=int(self.tokens[number]),
            unknown=int(self.unknown[number]),
            lossy=sum(count for _, count in lost),
            unknown_texts=_offenders(unknown),
            lossy_characters=tuple(
                (character, tokenizer.decode(tokenizer.encode(character).ids).strip(), count)
                for character, count in _offenders(mostly)
            ),
        )


def _offenders(counts: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts, key=lambda entry: (-entry[1], entry[0]))[:_OFFENDERS])


def _by_script(scripts: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    return np.bincount(scripts, minlength=len(SCRIPTS))


def _script(character: str) -> int:
    return int(script_table()[min(ord(character), END - 1)]) if character else 0


def table(figures: Sequence[ScriptFigures]) -> Iterator[str]:
    """The figures as lines of text."""
    yield f"{'script':12} {'characters':>12} {'tokens':>12}  {'fertility':24} {'unknown':>9} {'lossy':>9}"
    for each in figures:
        fertility = f"{each.fertility:.2f} tokens per {each.unit}"
        unknown, lossy = each.unknown / each.characters, each.lossy / each.characters
        yield f"{each.script:12} {each.characters:12,} {each.tokens:12,}  {fertility:24} {unknown:9.3%} {lossy:9.3%}"
    for each in figures:
        if each.unknown_texts:
            yield f"{each.script}, unknown: " + ", ".join(f"{_shown(text)} ({count:,})" for text, count in each.unknown_texts)
        if each.lossy_characters:
            yield f"{each.script}, lossy: " + ", ".join(
                f"{_shown(character)} U+{ord(character):04X}{_lost_as(character, back)} ({count:,})"
                for character, back, count in each.lossy_characters
            )


def _lost_as(character: str, back: str) -> str:
    if back == character:
        return " within words"  # alone it comes back
    return f" as {_shown(back)}" if back else ""


def _shown(text: str) -> str:
    """Printable, and not too long."""
    text = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
    return text if len(text) <= 20 else f"{text[:20]}..."
