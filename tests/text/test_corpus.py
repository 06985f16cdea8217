from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import tokenizers as hf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from electra.errors import ElectraError
from electra.text.build import Progress, build
from electra.text.corpus import Corpus, inspect
from electra.text.encode import sentence_ends
from electra.text.tokenizer import Tokenizer, load


def write_documents(directory: Path, documents: list[str], name: str = "a.jsonl") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


def stored(corpus: Corpus) -> list[npt.NDArray[np.uint32]]:
    """Every document of a corpus, as it is stored."""
    found = []
    for number, shard in enumerate(corpus.shards):
        offsets = corpus.offsets(number)
        stream = corpus.tokens(number, 0, shard.tokens).astype(np.uint32)
        found += [stream[start:stop] for start, stop in pairwise(offsets)]
    return found


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


# -- what is stored ------------------------------------------------------------------------------------------------------

WORDS = ["The", "café", "rose.", "rivers!", "我们", "公园。", "\n", " ", "x"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map("".join), max_size=12),
    shard_tokens=st.sampled_from([1, 20, 1000]),
)
def test_every_token_of_every_document_is_there(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, documents: list[str], shard_tokens: int
) -> None:
    directory = tmp_path_factory.mktemp("corpus")
    kept = [text for text in documents if text.strip()]
    source = write_documents(directory, [*documents, "The end."])
    manifest = build([source], tokenizer, directory / "out", shard_tokens=shard_tokens)
    corpus = Corpus(directory / "out")
    expected = sorted(tokenizer.encode(text).ids for text in [*kept, "The end."])
    assert sorted(document.tolist() for document in stored(corpus)) == expected
    assert manifest.documents == len(expected) == sum(shard.documents for shard in corpus.shards)
    assert manifest.documents == sum(manifest.lengths.values())
    assert manifest.tokens == sum(map(len, expected)) == sum(shard.tokens for shard in corpus.shards)
    assert manifest.unknown_tokens == sum(ids.count(tokenizer.unk_id) for ids in expected)
    assert manifest.counts.get("dropped: empty documents", 0) == len(documents) - len(kept)
    corpus.verify()


def test_tokens_decode_to_the_texts(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    build([write_documents(tmp_path, texts)], tokenizer, tmp_path / "out")
    decoded = sorted(tokenizer.decode(document) for document in stored(Corpus(tmp_path / "out")))
    assert decoded == sorted(tokenizer.decode(tokenizer.encode(text).ids) for text in texts)
    assert any("café" in text for text in decoded)


def test_special_tokens_in_texts_do_not_end_documents(tokenizer: Tokenizer, tmp_path: Path) -> None:
    build([write_documents(tmp_path, ["a [SEP] b [CLS] [MASK]"])], tokenizer, tmp_path / "out")
    (document,) = stored(Corpus(tmp_path / "out"))
    special = np.isin(document, [tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.pad_id])
    assert np.flatnonzero(special).tolist() == [0, len(document) - 1]


def test_sentences_join_to_the_document(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    build([write_documents(tmp_path, texts)], tokenizer, tmp_path / "out")
    corpus = Corpus(tmp_path / "out")
    for number, document in enumerate(stored(corpus)):
        ends = corpus.sentence_ends(0, number).tolist()
        assert ends == sorted(set(ends))
        assert ends[0] > 1
        assert ends[-1] == len(document) - 1


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It cost 3.5 dollars. Really?!", ["It cost 3.5 dollars.", "Really?!"]),
        ('He said "no." Then he left', ['He said "no."', "Then he left"]),
        ("今天下雨。明天呢？走吧！", ["今天下雨。", "明天呢？", "走吧！"]),
        ("他说：“下雨了。”谁信", ["他说：“下雨了。”", "谁信"]),
        ("a line\nanother line", ["a line", "another line"]),
        ("one line without end", ["one line without end"]),
        ("...\n!", ["...", "!"]),
    ],
)
def test_where_sentences_end(text: str, sentences: list[str]) -> None:
    starts = [place for place, character in enumerate(text) if not character.isspace()]  # a token a character
    ends = sentence_ends(text, starts)
    begins = [1, *ends]
    found = ["".join(text[starts[token - 1]] for token in range(*span)) for span in zip(begins, ends, strict=False)]
    assert found == ["".join(sentence.split()) for sentence in sentences]


def test_other_tokenizers_keep_their_tokens(tmp_path: Path) -> None:
    # byte-level: spaces and line breaks belong to tokens, a character may be several tokens
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = hf.Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, [], unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load(tmp_path)
    text = "One. Two!\n今天下雨。明天"
    build([write_documents(tmp_path, [text])], tokenizer, tmp_path / "out")
    corpus = Corpus(tmp_path / "out")
    (document,) = stored(corpus)
    assert tokenizer.decode(document) == text
    ends = corpus.sentence_ends(0, 0).tolist()
    spans = zip([1, *ends], ends, strict=False)
    assert [tokenizer.decode(document[start:stop]) for start, stop in spans] == ["One.", " Two!\n", "今天下雨。", "明天"]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_tokens_take_two_bytes_where_they_can(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(5, vocab_size))]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    build([write_documents(tmp_path, [f"w5 w{vocab_size - 1}"])], load(tmp_path), tmp_path / "out")
    corpus = Corpus(tmp_path / "out")
    assert corpus.tokens(0, 0, 4).dtype == dtype
    assert corpus.tokens(0, 0, 4).tolist() == [2, 5, vocab_size - 1, 3]


def test_shards_are_arrow_files_that_anyone_can_read(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    build([write_documents(tmp_path, texts)], tokenizer, tmp_path / "out")
    table = pa.ipc.open_file(tmp_path / "out" / "shard-00000.arrow").read_all()
    assert table.schema == pa.schema({"tokens": pa.list_(pa.uint16()), "sentence_ends": pa.list_(pa.uint32())})
    assert len(table) == len(texts)


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files and mapped pages as Linux tells them")
def test_reading_holds_no_shard(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    build([write_documents(tmp_path, texts * 20)], tokenizer, tmp_path / "out", shard_tokens=50)
    corpus = Corpus(tmp_path / "out")
    for number, shard in enumerate(corpus.shards):
        assert not corpus.tokens(number, 0, shard.tokens).flags.writeable
        assert len(corpus.document_starts(number, 0, shard.tokens)) == shard.documents - 1
    assert len(corpus.shards) > 50
    # of this corpus alone: what others have open may be closed meanwhile
    held = [os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.exists()]  # noqa: PTH115
    assert not [target for target in held if str(tmp_path) in target]
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_a_shard_that_vanishes_or_shrinks_while_it_is_read(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    build([write_documents(tmp_path, texts * 5)], tokenizer, tmp_path / "out")
    corpus, shard = Corpus(tmp_path / "out"), tmp_path / "out" / "shard-00000.arrow"
    count = corpus.shards[0].tokens
    assert len(corpus.tokens(0, 0, count)) == count
    shard.write_bytes(shard.read_bytes()[:500])
    with pytest.raises(ElectraError, match=r"E-D123 .*shorter"):
        corpus.tokens(0, 0, count)
    shard.unlink()
    for read in (corpus.tokens, corpus.document_starts):
        with pytest.raises(ElectraError, match=r"E-D123 .*cannot be read: No such file"):
            read(0, 0, count)


# -- the manifest --------------------------------------------------------------------------------------------------------


def test_manifest_tells_everything(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_documents(tmp_path / "text", ["The café\x00", "", "The"], "a.jsonl")
    (tmp_path / "text" / "b.txt").write_text("我们\n\n公园\n", encoding="utf-8")
    (tmp_path / "text" / "c.txt").write_text("")
    (tmp_path / "text" / "d.pdf").write_text("")
    manifest = build([tmp_path / "text"], tokenizer, tmp_path / "out")
    assert Corpus(tmp_path / "out").manifest == manifest
    assert manifest.documents == 4
    assert manifest.sources == 3
    assert manifest.text_bytes == len("The caféThe我们公园".encode())
    assert manifest.counts == {
        "dropped: empty documents": 1,
        "read: files in utf-8": 2,
        "removed: nul characters": 1,
        "skipped: empty files": 1,
        "skipped: files of another kind": 1,
    }
    assert manifest.tokenizer == tokenizer.fingerprint
    assert manifest.vocab_size == tokenizer.vocab_size
    ids = (manifest.pad_id, manifest.unk_id, manifest.cls_id, manifest.sep_id, manifest.mask_id)
    assert ids == tokenizer.special_ids
    sources = [json.loads(line) for line in (tmp_path / "out" / "sources.jsonl").read_text().splitlines()]
    assert [(Path(source["file"]).name, source["documents"], source["bytes"], source["counts"]) for source in sources] == [
        ("a.jsonl", 2, len("The caféThe".encode()),
         {"dropped: empty documents": 1, "read: files in utf-8": 1, "removed: nul characters": 1}),
        ("b.txt", 2, len("我们公园".encode()), {"read: files in utf-8": 1}),
        ("c.txt", 0, 0, {"skipped: empty files": 1}),
    ]  # fmt: skip
    assert manifest.samples == {
        "dropped: empty documents": (f"{tmp_path}/text/a.jsonl:2",),
        "skipped: files of another kind": (f"{tmp_path}/text/d.pdf",),
    }


def test_histogram_of_lengths(tokenizer: Tokenizer, tmp_path: Path) -> None:
    # x is one token; with [CLS] and [SEP] these are 3, 4, 5, 8 and 9 tokens
    documents = [" ".join("." * words) for words in (1, 2, 3, 6, 7)]
    manifest = build([write_documents(tmp_path, documents)], tokenizer, tmp_path / "out")
    assert manifest.lengths == {4: 2, 8: 2, 16: 1}


def test_a_tokenizer_for_other_text_is_noticed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = write_documents(tmp_path, ["ЖЫШ ЩЮЯ ЭЪЬ The"])
    assert "[UNK]" in build([source], tokenizer, tmp_path / "bad").warnings[0]
    assert build([write_documents(tmp_path, ["The café"])], tokenizer, tmp_path / "good").warnings == []


def test_progress_is_told(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    told: list[Progress] = []
    manifest = build(
        [write_documents(tmp_path, texts * 5)], tokenizer, tmp_path / "out", shard_tokens=100, progress=told.append
    )
    assert len(told) > 5
    assert [step.documents for step in told] == sorted({step.documents for step in told})
    assert (told[-1].documents, told[-1].tokens, told[-1].text_bytes) == (
        manifest.documents,
        manifest.tokens,
        manifest.text_bytes,
    )


def test_inspect_shows_counts_and_samples(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    build([write_documents(tmp_path, texts)], tokenizer, tmp_path / "out")
    summary = inspect(tmp_path / "out", samples=4, sample_tokens=1000)
    assert summary.manifest.documents == len(texts)
    assert len(summary.samples) == 4
    assert set(summary.samples) <= {tokenizer.decode(tokenizer.encode(text).ids) for text in texts}
    assert len(inspect(tmp_path / "out", samples=100).samples) == len(texts)


# -- determinism ---------------------------------------------------------------------------------------------------------


def test_same_files_and_seed_give_the_same_bytes(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = write_documents(tmp_path, texts * 10)
    first, second, other = (
        build([source], tokenizer, tmp_path / name, seed=seed, shard_tokens=500)
        for name, seed in [("first", 1), ("second", 1), ("other", 2)]
    )
    assert content(tmp_path / "first") == content(tmp_path / "second")
    assert first.fingerprint == second.fingerprint != other.fingerprint


def test_the_order_of_documents_does_not_change_between_versions(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    source = write_documents(tmp_path, list("abcdefgh"))
    build([source], load(tmp_path), tmp_path / "out", seed=3)
    assert [document[1] - 5 for document in stored(Corpus(tmp_path / "out"))] == [6, 1, 5, 2, 7, 4, 3, 0]


def test_documents_are_shuffled_within_a_shard(tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = [f"{'.' * number}" for number in range(1, 60)]
    build([write_documents(tmp_path, documents)], tokenizer, tmp_path / "out")
    lengths = np.diff(Corpus(tmp_path / "out").offsets(0))
    assert sorted(lengths) == list(range(3, 62))
    assert list(lengths) != sorted(lengths)
    assert abs(np.corrcoef(lengths, np.arange(59))[0, 1]) < 0.5


# -- nothing half, nothing lost ------------------------------------------------------------------------------------------


def test_an_existing_corpus_is_not_replaced_unasked(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = write_documents(tmp_path / "text", texts)
    build([source], tokenizer, tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(ElectraError, match="a corpus is already there") as caught:
        build([source], tokenizer, tmp_path / "out", seed=1)
    assert caught.value.code == "E-C102"
    assert content(tmp_path / "out") == before
    build([source], tokenizer, tmp_path / "out", seed=1, overwrite=True)
    assert Corpus(tmp_path / "out").manifest.seed == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "text"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_corpus_is_never_replaced(tokenizer: Tokenizer, tmp_path: Path, overwrite: bool) -> None:
    source = write_documents(tmp_path, ["The"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")  # of a model, say
    (tmp_path / "file").write_text("dear")
    for out in ("out", "file"):
        with pytest.raises(ElectraError, match="no corpus is already there"):
            build([source], tokenizer, tmp_path / out, overwrite=overwrite)
    assert (tmp_path / "out" / "manifest.json").read_text() == "{}"
    assert (tmp_path / "file").read_text() == "dear"


def test_an_empty_directory_is_free(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "deep" / "out").mkdir(parents=True)
    build([write_documents(tmp_path, ["The"])], tokenizer, tmp_path / "deep" / "out")
    assert Corpus(tmp_path / "deep" / "out").manifest.documents == 1


def test_a_failed_build_keeps_the_old_corpus(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    build([write_documents(tmp_path, texts)], tokenizer, tmp_path / "out")
    before = content(tmp_path / "out")
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"fine\n\n" * 1000 + b"\xff")
    with pytest.raises(ElectraError, match="E-D100"):
        build([tmp_path / "a.jsonl", bad], tokenizer, tmp_path / "out", overwrite=True, shard_tokens=100)
    assert content(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "bad.txt", "out"]


def test_a_failed_renaming_keeps_the_old_corpus(
    texts: list[str], tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_documents(tmp_path, texts)
    build([source], tokenizer, tmp_path / "out")
    before = content(tmp_path / "out")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "made":
            raise OSError(errno.EIO, "injected")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ElectraError, match="E-R002"):
        build([source], tokenizer, tmp_path / "out", overwrite=True)
    assert content(tmp_path / "out") == before


def test_stopping_leaves_nothing(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    source = write_documents(tmp_path, texts * 5)
    with pytest.raises(KeyboardInterrupt):
        build([source], tokenizer, tmp_path / "out", shard_tokens=100, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_limit_on_file_size_leaves_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    source = write_documents(tmp_path, ["The café on the corner. " * 2000] * 5)
    program = f"""
import resource
from electra.errors import ElectraError
from electra.text import build, tokenizer
loaded = tokenizer.load({str(tmp_path / "tokenizer")!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    build.build([{str(source)!r}], loaded, {str(tmp_path / "out")!r})
except ElectraError as error:
    print(error.code)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "E-R001\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "tokenizer"]


def test_a_directory_that_cannot_be_written(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ElectraError) as caught:
        build([write_documents(tmp_path, ["The"])], tokenizer, tmp_path / "file" / "out")
    assert caught.value.code == "E-R002"


def test_no_document_is_an_error_that_tells_why(tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = write_documents(tmp_path, ["", " \x00"])
    with pytest.raises(ElectraError, match="dropped: empty documents: 2") as caught:
        build([source], tokenizer, tmp_path / "out")
    assert caught.value.code == "E-D120"
    assert not (tmp_path / "out").exists()


def test_documents_without_tokens_are_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    # BERT's normaliser removes joiners, cleaning leaves them
    manifest = build([write_documents(tmp_path, ["\u200d", "The"])], tokenizer, tmp_path / "out")
    assert manifest.documents == 1
    cause = "dropped: documents of which the tokenizer leaves nothing"
    assert manifest.counts == {cause: 1, "read: files in utf-8": 1}


@pytest.mark.parametrize("shard_tokens", [0, -5, (1 << 30) + 1])
def test_impossible_shards(tokenizer: Tokenizer, tmp_path: Path, shard_tokens: int) -> None:
    with pytest.raises(ElectraError, match="E-C106"):
        build([write_documents(tmp_path, ["The"])], tokenizer, tmp_path / "out", shard_tokens=shard_tokens)


# -- damage --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus_path(texts: list[str], tokenizer: Tokenizer, tmp_path: Path) -> Path:
    build([write_documents(tmp_path, texts * 5)], tokenizer, tmp_path / "out", shard_tokens=400)
    return tmp_path / "out"


def test_a_flipped_byte_is_found_by_verifying(corpus_path: Path) -> None:
    shard = corpus_path / "shard-00001.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ElectraError, match=r"shard-00001\.arrow: .*hash differs") as caught:
        Corpus(corpus_path).verify()
    assert caught.value.code == "E-D123"


@pytest.mark.parametrize("damage", ["truncated", "longer", "missing", "foreign", "swapped"])
def test_a_shard_that_is_not_what_the_manifest_says(corpus_path: Path, damage: str) -> None:
    shard = corpus_path / "shard-00000.arrow"
    data = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    elif damage == "swapped":
        tree = json.loads((corpus_path / "manifest.json").read_text())
        tree["shards"][0]["tokens"] += 1
        (corpus_path / "manifest.json").write_text(json.dumps(tree))
    else:
        shard.write_bytes({"truncated": data[:-1], "longer": data + b"x", "foreign": bytes(len(data))}[damage])
    corpus = Corpus(corpus_path)
    assert corpus.tokens(1, 0, 1).tolist() == [2]
    with pytest.raises(ElectraError, match=r"shard-00000\.arrow") as caught:
        corpus.offsets(0)
    assert caught.value.code == "E-D123"


def test_no_corpus(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ElectraError) as caught:
            Corpus(path)
        assert caught.value.code == "E-D121"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"format_version": 2}, "format 2"),
        ({"documents": "many"}, "documents"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"shards": [{"file": "../x.arrow", "documents": 1, "tokens": 3, "bytes": 9, "blake2b": ""}]}, "lies elsewhere"),
    ],
)
def test_a_manifest_that_is_broken_or_newer(corpus_path: Path, change: dict[str, object], cause: str) -> None:
    file = corpus_path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ElectraError, match=cause) as caught:
        Corpus(corpus_path)
    assert caught.value.code == "E-D122"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_a_manifest_that_is_no_json(corpus_path: Path, data: bytes) -> None:
    (corpus_path / "manifest.json").write_bytes(data)
    with pytest.raises(ElectraError, match="E-D122"):
        Corpus(corpus_path)


def test_a_changed_tokenizer_is_noticed(corpus_path: Path, tokenizer: Tokenizer) -> None:
    assert Corpus(corpus_path).tokenizer().fingerprint == tokenizer.fingerprint
    file = corpus_path / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text().replace('"lowercase": false', '"lowercase": true'))
    with pytest.raises(ElectraError, match="E-D124"):
        Corpus(corpus_path).tokenizer()


# -- memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak includes that of the parent process")
def test_memory_does_not_grow_with_the_corpus(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    block = "The rivers rose by 3.5 metres. 我们去公园散步。\n" * 10 + "\n"
    program = """
import re, sys
from electra.text import build, tokenizer
build.build([sys.argv[2]], tokenizer.load(sys.argv[1]), sys.argv[3], shard_tokens=50_000)
print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read()).group(1))
"""
    peaks = []
    for size in (400, 6_000):
        source = tmp_path / f"{size}.txt"
        source.write_text(block * size, encoding="utf-8")
        command = [sys.executable, "-c", program, str(tmp_path / "tokenizer"), str(source), str(tmp_path / f"out{size}")]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout) * 1024)
    corpus = Corpus(tmp_path / "out6000")
    assert len(corpus.shards) > 20
    assert peaks[1] - peaks[0] < 20 << 20  # bytes; a million tokens more, at 8 in a list and 50 in an encoding each
