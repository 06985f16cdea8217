from __future__ import annotations

import pytest

from electra.text.tokenizer import Tokenizer
from electra.text.train_tokenizer import train

ENGLISH = [
    "The café on the corner opens at seven. Nobody came before eight!",
    "Did the rivers rise? They rose by 3.5 metres, and the bridges held.",
    "An encoder reads the whole sentence at once; a decoder reads it word by word.",
]
CHINESE = [
    "今天天气很好，我们去公园散步。孩子们在湖边喂鸭子！",
    "你看过这本书吗？作者写得很仔细。",
    "他说：“明天会下雨。”但是谁也不相信。",
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """English and Chinese documents of several lines."""
    return [*ENGLISH, *CHINESE, "\n".join(ENGLISH), "\n".join(CHINESE), "\n".join(ENGLISH[:2] + CHINESE[:2])]


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> Tokenizer:
    return train(texts, 400, min_frequency=1)
