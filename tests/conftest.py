"""What all tests stand on: no network, one thread, and a small corpus of Chinese and English made on the spot."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
# set before torch is imported; without threads of its own, this process may be forked from, too
os.environ["OMP_NUM_THREADS"] = "1"
# children that take two threads: without this they wait for each other in busy loops, which takes minutes on a busy machine
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import multiprocessing
import random
import runpy
import subprocess
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

# an example is judged by its result: on a busy machine any takes long
hypothesis.settings.register_profile("steady", deadline=None)
hypothesis.settings.load_profile("steady")

if TYPE_CHECKING:
    from electra.train.loop import Training

ENGLISH = {
    "subject": [
        "the reader",
        "a gardener",
        "the old captain",
        "my neighbour",
        "the teacher",
        "a student",
        "the river",
        "the night train",
    ],
    "verb": [
        "opens",
        "carries",
        "remembers",
        "follows",
        "repairs",
        "crosses",
        "describes",
        "leaves",
    ],
    "object": [
        "the wooden gate",
        "a heavy letter",
        "the narrow bridge",
        "the summer garden",
        "a silver lamp",
        "the quiet harbour",
    ],
    "end": [
        "before breakfast.",
        "in the early morning.",
        "without a word.",
        "near the station.",
        "every second day.",
    ],
}
CHINESE = {
    "subject": ["老师", "邻居的孩子", "船长", "一位学生", "园丁", "夜班火车", "那条河"],
    "verb": ["打开了", "记得", "修理着", "穿过", "离开", "描写"],
    "object": ["木头的大门", "一封长信", "狭窄的桥", "夏天的花园", "银色的灯", "安静的港口"],
    "end": ["，没有说话。", "，就在早饭以前。", "，每隔一天。", "，在车站旁边！"],
}


def _documents(count: int, seed: int) -> list[str]:
    """Documents of 2 to 12 sentences, each in one language; object and end depend on the verb, so that there is more to learn
    than frequencies."""
    chance = random.Random(seed)
    documents = []
    for number in range(count):
        words, gap = (ENGLISH, " ") if number % 2 else (CHINESE, "")
        sentences = []
        for _ in range(chance.randint(2, 12)):
            verb = chance.randrange(len(words["verb"]))
            parts = [
                chance.choice(words["subject"]),
                words["verb"][verb],
                words["object"][(verb + chance.randrange(2)) % len(words["object"])],
                words["end"][verb % len(words["end"])],
            ]
            sentences.append(gap.join(parts))
        documents.append(gap.join(sentences))
    return documents


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """500 short documents, Chinese and English in turn."""
    return _documents(500, seed=0)


@pytest.fixture(scope="session")
def text_file(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documents in one file, divided by blank lines."""
    path = tmp_path_factory.mktemp("text") / "documents.txt"
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer_dir(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained tokenizer of at most 500 entries."""
    from electra.text.train_tokenizer import train

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train(documents, 500).save(path)
    return path


@pytest.fixture(scope="session")
def corpus_dir(text_file: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documents as a corpus of several shards."""
    from electra.text import build
    from electra.text.tokenizer import load

    path = tmp_path_factory.mktemp("corpus") / "corpus"
    build.build([text_file], load(tokenizer_dir), path, shard_tokens=8000)
    return path


@pytest.fixture(scope="session")
def server() -> ForkServerContext:
    """Forks processes from one that has imported what a run needs but never computed anything, so that threads are safe in
    them and each costs milliseconds. torch._dynamo is what torch's optimisers import, in two seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["electra.cli", "electra.build.sweep", "electra.build.pretrain", "torch._dynamo"])
    return context


@pytest.fixture(scope="session")
def process(server: ForkServerContext) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`electra words...` in a process of its own, whose files may not grow over `file_limit` bytes (-1 = any)."""
    script = str(Path(__file__).with_name("verb.py"))

    def run(*words: object, file_limit: int = -1) -> subprocess.CompletedProcess[str]:
        heard, told = server.Pipe(duplex=False)
        given = {"argv": [str(word) for word in words], "file_limit": file_limit, "told": told}
        child = server.Process(target=runpy.run_path, args=(script, {"GIVEN": given}, "__main__"))
        with heard:
            with told:
                child.start()
            assert heard.poll(100), "it hangs"
            out, err = heard.recv()
        child.join()
        assert child.exitcode is not None
        return subprocess.CompletedProcess(given["argv"], child.exitcode, out, err)

    return run


@pytest.fixture(scope="session")
def training_of(corpus_dir: Path) -> Callable[..., Training]:
    """What a pre-training recipe builds for its phase "rtd", ready for the loop, with a log and checkpoints that go nowhere."""

    def build(recipe: str, *assignments: str, steps: int = 6, micro_rows: int = 8, bf16: bool = False) -> Training:
        from electra.build.pretrain import PretrainRecipe, Setting
        from electra.config import load
        from electra.train.loop import Span

        places = [f"corpus.path={corpus_dir}", "run.dir=nowhere"]
        setting = Setting(load(PretrainRecipe, [recipe], [*places, *assignments]))
        return setting.training(Span(name="rtd", first=0, steps=steps), None, micro_rows, bf16, card=str)

    return build
