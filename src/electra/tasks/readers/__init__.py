"""Labelled files of every task -> `Example`s, as a stream, with the place each came from and notes about what was inferred.

    source     bytes -> lines, JSON; what kind of file it is
    rows       tables, JSON lines, parquet -> rows with named or numbered fields
    infer      which columns hold what
    texts      classification, regression, embeddings          read_texts, read_pairs
    tags       conll, spans, label_studio -> mentions          read_tags
    squad      questions about texts                           read_answers
    relations  two mentions and what is between them           read_relations
    targets    texts and what is written from them             read_targets
    choices    multiple choice                                 read_choices

Nothing is skipped or guessed silently: what cannot be understood is an error with file and line, what was inferred or mended
stands in `Reading.notes`.
"""

from electra.tasks.readers.choices import read_choices
from electra.tasks.readers.columns import Column, Columns, PairColumns, RelationColumns, TagColumns, TargetColumns
from electra.tasks.readers.relations import read_relations
from electra.tasks.readers.squad import read_answers
from electra.tasks.readers.tags import read_tags
from electra.tasks.readers.targets import read_targets
from electra.tasks.readers.texts import read_pairs, read_texts

__all__ = [
    "Column", "Columns", "PairColumns", "RelationColumns", "TagColumns", "TargetColumns", "read_answers", "read_choices",
    "read_pairs", "read_relations", "read_tags", "read_targets", "read_texts",
]  # fmt: skip
