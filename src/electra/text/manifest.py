"""The manifest of a corpus: what its shards hold and how it came about, as one JSON file that is written last."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from electra.config import STRICT
from electra.errors import ElectraError
from electra.storage import MANIFEST
from electra.text.filters import NO_FILTERS, FilterOptions

FORMAT_VERSION = 1
#: above this share of [UNK], the tokenizer does not suit the text
SUSPICIOUS_UNKNOWN_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of a corpus: `tokens` counts specials too, `bytes` and `blake2b` are those of the file."""

    __pydantic_config__ = STRICT
    file: str
    documents: int
    tokens: int
    bytes: int
    blake2b: str


def shard_name(number: int) -> str:
    """Of the file of a shard, counted from 0."""
    return f"shard-{number:05d}.arrow"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a corpus holds and how it came about.

    Args:
        format_version: of the directory's layout.
        fingerprint: changes with any token or any document's place.
        tokenizer: fingerprint of the tokenizer.
        vocab_size, pad_id, unk_id, cls_id, sep_id, mask_id: of the tokenizer.
        seed: of the documents' order within shards.
        segmenter: what said where words begin; None = the vocabulary does, and nothing is stored.
        sources: files read.
        documents: as stored.
        tokens: as stored, [CLS] and [SEP] of every document included.
        unknown_tokens: how many of them are [UNK].
        text_bytes: UTF-8 bytes of the clean text.
        filters: which documents were to stay.
        counts: files read by encoding; what was skipped, dropped, removed, replaced and split, by cause.
        lengths: documents by length: {n: those with more than n / 2 and at most n tokens}.
        shards: the files, in order.
        samples: by cause, some places where something was left out; older corpora have none.
    """

    __pydantic_config__ = STRICT
    format_version: int
    fingerprint: str
    tokenizer: str
    vocab_size: int
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    seed: int
    sources: int
    documents: int
    tokens: int
    unknown_tokens: int
    text_bytes: int
    counts: dict[str, int]
    lengths: dict[int, int]
    shards: tuple[Shard, ...]
    samples: dict[str, tuple[str, ...]] = field(default_factory=dict)
    segmenter: str | None = None
    filters: FilterOptions = NO_FILTERS

    def to_json(self) -> bytes:
        """As it stands in the file."""
        return _MANIFEST.dump_json(self, indent=2) + b"\n"

    @property
    def warnings(self) -> list[str]:
        """What a user should look at before training on this."""
        share = self.unknown_tokens / self.tokens
        if share <= SUSPICIOUS_UNKNOWN_SHARE:
            return []
        return [f"{share:.1%} of the tokens are [UNK]: this tokenizer was made for other text; train one on yours"]


_MANIFEST = TypeAdapter(Manifest)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the corpus in directory `path`.

    Raises:
        ElectraError: E-D121 no corpus there, E-D122 a manifest that is broken or of another version.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise ElectraError(
            "E-D121", str(path), "no corpus (no manifest.json)", "build one: electra corpus build TEXT --out DIR"
        )
    try:
        tree = json.loads(file.read_bytes())
        version = tree.get("format_version") if isinstance(tree, dict) else None
        if version != FORMAT_VERSION:
            fix = "read it with the version of electra that wrote it, or build it again"
            raise ElectraError("E-D122", str(file), f"format {version!r}, this version reads {FORMAT_VERSION}", fix)
        manifest = _MANIFEST.validate_json(file.read_bytes())
    except ValidationError as error:
        cause = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
        raise ElectraError("E-D122", str(file), f"broken manifest: {cause}", "build the corpus again") from None
    except (OSError, ValueError) as error:
        raise ElectraError("E-D122", str(file), f"broken manifest: {error}", "build the corpus again") from None
    for shard in manifest.shards:
        if Path(shard.file).name != shard.file:
            raise ElectraError("E-D122", str(file), f"shard {shard.file!r} lies elsewhere", "build the corpus again")
    return manifest
