"""The text of tokens that are still coming, in pieces that never have to be taken back.

In: ids, one after the other. Out: what `Tokenizer.decode` says of them, piece by piece: a character whose bytes have not all
come waits for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from electra.text.tokenizer import Tokenizer

#: what stands for bytes that are no character, or not yet
UNFINISHED = "\ufffd"


class Growing:
    """The text of tokens that come one after the other.

    Args:
        tokenizer: of the tokens.
        given: what stands before the first; not said.
    """

    def __init__(self, tokenizer: Tokenizer, given: Sequence[int]) -> None:
        # a token joins those before it: a few tokens are read again, of whose text so many characters have been said
        self._tokenizer, self._tokens = tokenizer, list(given[-8:])
        self._said = len(tokenizer.decode(self._tokens).rstrip(UNFINISHED))

    def add(self, token: int) -> str:
        """What can be said now; "" where a character is not complete."""
        before = len(self._tokens)
        self._tokens.append(token)
        text = self._tokenizer.decode(self._tokens)
        sure = text.rstrip(UNFINISHED)
        piece, self._said = sure[self._said :], max(self._said, len(sure))
        if len(self._tokens) > 32 and sure == text and piece:
            del self._tokens[:before]
            self._said = len(self._tokenizer.decode(self._tokens))
        return piece
