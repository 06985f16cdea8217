"""Tagged text of any form -> `Mention`s. CoNLL columns, JSON spans, Label Studio's export; texts alone for prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from electra.contracts import Reading
from electra.errors import ElectraError
from electra.tasks.readers import conll, label_studio, spans
from electra.tasks.readers.columns import Columns, TagColumns
from electra.tasks.readers.rows import open_table
from electra.tasks.readers.source import LabelledFile, kind_of
from electra.tasks.readers.texts import read_texts

_DEFAULTS = TagColumns()


def read_tags(path: Path, columns: TagColumns = _DEFAULTS) -> Reading:
    """Texts with the spans in them.

    A file of lines, and a `.tsv`, is CoNLL's if every line has the same number of columns and the last one holds tags; a
    `.json` is Label Studio's export or spans, a `.jsonl` spans (see `readers.spans`); any other file has texts and no spans.

    Returns:
        Examples with text and target, a tuple of `Mention` in the order of the text (they may overlap in JSON), None where the
        file has no spans; `given["words"]`, the characters (start, end) of each word, from CoNLL files; and there
        `given["tagged"] = "words"` where every word has a tag of its own, as part of speech.

    Raises:
        ElectraError: E-D300 to E-D307 as `read_texts`, E-D334 a line without word or tag, E-D335 lines that may be words and
            tags, or not, E-D336 tags of no scheme, E-D337 spans that cannot be read, E-D338 a span that does not fit its text.
    """
    file = LabelledFile(path, columns.encoding)
    form = columns.format or kind_of(file)
    if form == "conll" or (columns.format is None and form in ("lines", "tsv") and _is_conll(file)):
        return conll.read(file, columns)
    if form == "json" and label_studio.is_export(value := file.value):
        return label_studio.mentions(path, value)
    if form in ("json", "jsonl"):
        return spans.read(str(path), open_table(file, form, (), lambda _: False).rows())
    found = read_texts(path, Columns(format="txt" if form == "lines" else form, encoding=columns.encoding))
    found.notes.append("texts alone, no spans")
    return Reading(examples=(replace(example, target=None) for example in found.examples), notes=found.notes)


def _is_conll(file: LabelledFile) -> bool:
    found = conll.looks_like(file)
    if found is None:
        raise ElectraError("E-D335", str(file.path), "every line has as many columns, but the last is not sure to hold tags",
                           'set columns.format = "conll" if these are words and tags, "txt" or "tsv" if not')  # fmt: skip
    return found
