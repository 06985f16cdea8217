"""From token numbers back to text as it is written, also while the tokens are still coming.

In: the ids of a text's tokens. Out: the text, without specials. What a tokenizer forgot cannot come back: WordPiece knows no
line ends and no spaces, so single spaces stand between its words; none stands between two characters of Chinese or Japanese,
nor between one of these and a digit or a punctuation mark.

`Growing` says the text of a stream of tokens in pieces that never have to be taken back: a character whose bytes have not all
come waits for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import decoders

from electra.text.scripts import IDEOGRAPHS_AND_KANA
from electra.text.tokenizer import Tokenizer

_WIDE = f"{IDEOGRAPHS_AND_KANA}\u3000-\u303f\uff00-\uffef\U00020000-\U000323af"
#: a space that the tokenizer put beside a wide character, unless a letter of an alphabet is on its other side
_NO_SPACE = re.compile(rf"(?<=[{_WIDE}]) (?=[{_WIDE}\W\d_])|(?<=[{_WIDE}\W\d_]) (?=[{_WIDE}])")
#: what stands for bytes that are no character, or not yet
UNFINISHED = "\ufffd"


def written(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The text of `tokens`. The text of their beginning is the beginning of the text, but for an unfinished character."""
    text = tokenizer.decode(tokens)
    return _NO_SPACE.sub("", text) if isinstance(tokenizer.backend.decoder, decoders.WordPiece) else text


class Growing:
    """The text of tokens that come one after the other.

    Args:
        tokenizer: of the tokens.
        given: what stands before the first; not said.
    """

    def __init__(self, tokenizer: Tokenizer, given: Sequence[int]) -> None:
        # a token joins those before it: a few tokens are read again, of whose text so many characters have been said
        self._tokenizer, self._tokens = tokenizer, list(given[-8:])
        self._said = len(written(tokenizer, self._tokens).rstrip(UNFINISHED))

    def add(self, token: int) -> str:
        """What can be said now; "" where a character is not complete."""
        before = len(self._tokens)
        self._tokens.append(token)
        text = written(self._tokenizer, self._tokens)
        sure = text.rstrip(UNFINISHED)
        piece, self._said = sure[self._said :], max(self._said, len(sure))
        if len(self._tokens) > 32 and sure == text and piece:
            del self._tokens[:before]
            self._said = len(written(self._tokenizer, self._tokens))
        return piece
