"""Foreign weights -> a model directory of ours, that can be fine-tuned, asked, or pre-trained further: `electra import`.

In: a directory that transformers wrote, with its tokenizer, and perhaps a generator. Out: a sealed directory, loaded again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from electra.errors import ElectraError
from electra.models import sentence_transformers
from electra.models.model_dir import Generator, ModelDir, Provenance, load_model_dir, save_model_dir
from electra.text.tokenizer import Tokenizer


def import_model(source: str | Path, out: Path, generator: str | Path | None = None) -> ModelDir:
    """Make a model directory of ours from one that transformers wrote: `electra import`.

    Args:
        source: a discriminator, a masked language model, an encoder, or a BERT-like one, with its tokenizer.
        out: where to; must not exist.
        generator: a masked language model to put beside it as its generator, with the same tokenizer.

    Returns:
        The new directory, loaded; `dropped` lists what had no place in it.

    Raises:
        ElectraError: E-C210 a source that is not a directory, E-C211 `out` exists, E-M206 tokenizer and vocabulary do not fit,
            E-M207 `generator` is no masked language model or has another tokenizer; and what `load_model_dir` raises.
    """
    if out.exists():
        raise ElectraError("E-C211", str(out), "it exists already", "give another directory, or remove this one")
    main = load_model_dir(_local(source))
    tokenizer = main.tokenizer()
    _require_rows(source, main, tokenizer)
    beside = main.generator
    if generator is not None:
        other = load_model_dir(_local(generator))
        if other.mlm_head is None:
            raise ElectraError(
                "E-M207", str(generator), "it has no masked language modelling head", "name the generator's directory"
            )
        if other.tokenizer().fingerprint != tokenizer.fingerprint:
            raise ElectraError(
                "E-M207", str(generator), "its tokenizer is not that of the discriminator", "name the pair's generator"
            )
        _require_rows(generator, other, tokenizer)
        beside = Generator(encoder=other.encoder, mlm_head=other.mlm_head)
    name = Path(source).name
    save_model_dir(
        out,
        encoder=main.encoder,
        provenance=Provenance(
            tokenizer=tokenizer, card=lambda: f"# {out.name}\n\nImported from the model directory `{name}`.\n"
        ),
        head=main.mlm_head or main.rtd_head or main.energy_head or main.task_head or main.own_head,
        labels=main.labels,
        problem=main.problem,
        generator=None if beside is None else (beside.encoder, beside.mlm_head),
        noise=main.noise,
        task=main.task or sentence_transformers.read(Path(source), main.encoder.config.max_position_embeddings),
    )
    return replace(load_model_dir(out), dropped=main.dropped)


def _require_rows(source: str | Path, model: ModelDir, tokenizer: Tokenizer) -> None:
    """Raises E-M206 where a token has no row in the table; more rows than tokens are padding, which is usual."""
    if tokenizer.vocab_size > (rows := model.encoder.config.vocab_size):
        raise ElectraError("E-M206", str(source), f"the tokenizer has {tokenizer.vocab_size} tokens, the network only {rows}",
                           "bring the tokenizer that belongs to the weights")  # fmt: skip


def _local(source: str | Path) -> Path:
    if str(source).startswith("hf://"):
        raise ElectraError("E-C210", str(source), "downloads are not supported", "download the model and give its directory")
    if not Path(source).is_dir():
        raise ElectraError("E-C210", str(source), "no such directory", "give the directory of a model in transformers' format")
    return Path(source)
