"""The peer of the fine-tuning benchmarks: transformers' Trainer as its users write it, on the same weights with the same head.

Dynamic padding, AdamW with a linear warm-up and decay, clipping at 1.0, fp32 or bf16 autocast. Needs `pip install accelerate`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    ElectraForQuestionAnswering,
    ElectraForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

Rows = list[dict[str, Any]]


class Classifier(nn.Module):
    """The paper's head, which transformers' ElectraForSequenceClassification has not: dropout and one layer on [CLS]."""

    def __init__(self, model: Path, labels: int) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(model)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, labels)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, labels: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        first = self.encoder(**inputs).last_hidden_state[:, 0]
        logits = self.classifier(F.dropout(first, 0.1, self.training))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def text_rows(model: Path, texts: Sequence[Sequence[str]], labels: Sequence[int], length: int) -> Rows:
    """Rows of a classification: one text or two each."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    encoded = tokenizer(*map(list, zip(*texts, strict=True)), truncation=True, max_length=length)
    return [{**{name: encoded[name][i] for name in encoded}, "labels": label} for i, label in enumerate(labels)]


def word_rows(model: Path, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[int]], length: int) -> Rows:
    """Rows of a tagger: the label on the first sub-token of a word, -100 elsewhere."""
    encoded = AutoTokenizer.from_pretrained(model)(
        list(map(list, sentences)), is_split_into_words=True, truncation=True, max_length=length
    )
    rows = []
    for i, own in enumerate(tags):
        words = encoded.word_ids(i)
        labels = [own[w] if w is not None and w != before else -100 for before, w in zip([None, *words], words, strict=False)]
        rows.append({**{name: encoded[name][i] for name in encoded}, "labels": labels})
    return rows


def answer_rows(model: Path, file: Path, length: int, stride: int) -> Rows:
    """Rows of extractive question answering, as in transformers' run_qa: windows with a stride, positions of the answer."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows: Rows = []
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                encoded = tokenizer(
                    question["question"], paragraph["context"], truncation="only_second", max_length=length, stride=stride,
                    return_overflowing_tokens=True, return_offsets_mapping=True,
                )  # fmt: skip
                answer = question["answers"][0] if question["answers"] else None
                for i, offsets in enumerate(encoded["offset_mapping"]):
                    place = _place(offsets, encoded.sequence_ids(i), answer)
                    names = ("input_ids", "attention_mask", "token_type_ids")
                    rows.append({**{name: encoded[name][i] for name in names}, **place})
    return rows


def _place(offsets: Sequence[tuple[int, int]], sequences: Sequence[int | None], answer: Any) -> dict[str, int]:
    inside = {}
    if answer is not None:
        begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
        context = [i for i, sequence in enumerate(sequences) if sequence == 1]
        starts = [i for i in context if offsets[i][0] <= begin < offsets[i][1]]
        ends = [i for i in context if offsets[i][0] < end <= offsets[i][1]]
        if starts and ends:
            inside = {"start_positions": starts[0], "end_positions": ends[0]}
    return inside or {"start_positions": 0, "end_positions": 0}


def network(kind: str, model: Path, labels: int) -> tuple[nn.Module, Callable[[Rows], dict[str, Tensor]]]:
    """The network of a task, and what pads its rows."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    if kind == "classify":
        return Classifier(model, labels), DataCollatorWithPadding(tokenizer)
    if kind == "tag":
        return (
            ElectraForTokenClassification.from_pretrained(model, num_labels=labels),
            DataCollatorForTokenClassification(tokenizer),
        )
    return ElectraForQuestionAnswering.from_pretrained(model), DataCollatorWithPadding(tokenizer)


def trainer(
    kind: str, model: Path, rows: Rows, labels: int, *, place: Path, lr: float, epochs: float = 1, steps: int = -1,
    batch: int = 32, bf16: bool = False, seed: int = 0, callbacks: Sequence[TrainerCallback] = (),
) -> Trainer:  # fmt: skip
    """A Trainer that is ready to train.

    Args:
        kind: classify, tag or span.
        model: directory of the encoder.
        labels: number of outputs.
        place: directory to work in.
        lr, epochs, steps, batch, bf16, seed: as TrainingArguments has them; 10 % warm-up.
    """
    torch.manual_seed(seed)
    net, collator = network(kind, model, labels)
    arguments = TrainingArguments(
        output_dir=str(place), per_device_train_batch_size=batch, learning_rate=lr, num_train_epochs=epochs, max_steps=steps,
        warmup_steps=0.1, weight_decay=0.0, seed=seed, bf16=bf16, use_cpu=True, report_to="none", save_strategy="no",
        logging_strategy="no", remove_unused_columns=False, dataloader_pin_memory=False, disable_tqdm=True,
        per_device_eval_batch_size=64,
    )  # fmt: skip
    return Trainer(net, arguments, data_collator=collator, train_dataset=rows, callbacks=list(callbacks))
