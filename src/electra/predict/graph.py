"""Triples of many texts in, one knowledge graph out: as JSON lines, and as GraphML.

Mentions with the same surface and type are one node; surfaces are the same if they differ in case and white space only.
Triples with the same subject, relation and object are one, with its evidence: file, line, sentence and characters of each
place that says so. Its score is that of the best evidence. Everything comes in the order in which it was first seen, so the
same texts give the same bytes.

What is held are nodes, triples and their evidence; it grows with what is found, not with what is read.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from electra.contracts import Mention
from electra.predict.triples import Found, Triple
from electra.storage import unwritable

#: what XML 1.0 cannot hold
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Key = tuple[str, str]


@dataclass(kw_only=True)
class Node:
    """An entity: its number in the order of appearance, its first surface, its type, and how often it was mentioned."""

    number: int
    label: str
    type: str
    mentions: int = 0


@dataclass(kw_only=True)
class KnowledgeGraph:
    """Nodes and triples of what was added; `counts` says how much was read."""

    nodes: dict[Key, Node] = field(default_factory=dict)
    evidence: dict[tuple[Key, str, Key], list[dict[str, Any]]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, found: Found) -> None:
        """Merge what was found in one text."""
        text = found.example.text
        for mention in found.mentions:
            key = _key(text, mention)
            self.nodes.setdefault(key, Node(number=len(self.nodes), label=_surface(text, mention), type=mention.label))
            self.nodes[key].mentions += 1
        for triple in found.triples:
            key_of_triple = _key(text, triple.subject), triple.relation, _key(text, triple.object)
            self.evidence.setdefault(key_of_triple, []).append(_evidence(found, triple))
        self.counts.update(texts=1, sentences=found.sentences, mentions=len(found.mentions), pairs=found.pairs,
                           relations=len(found.triples), truncated_tokens=found.truncated)  # fmt: skip

    def triples(self) -> Iterator[dict[str, Any]]:
        """JSON-ready: `subject` and `object` (`id`, `label`, `type`), `relation`, `score`, `evidence`."""
        for (subject, relation, object_), evidence in self.evidence.items():
            yield {
                "subject": _node(self.nodes[subject]), "relation": relation, "object": _node(self.nodes[object_]),
                "score": max(one["score"] for one in evidence), "evidence": evidence,
            }  # fmt: skip

    def summary(self) -> dict[str, int]:
        """What was read, asked, found and merged: `nodes` and `triples` are what is left of `mentions` and `relations`."""
        return {**self.counts, "nodes": len(self.nodes), "triples": len(self.evidence)}

    def write_graphml(self, path: Path) -> None:
        """A directed multigraph that networkx, Gephi and others load.

        Nodes have `label`, `type`, `mentions`; edges `relation`, `score`, `count`, `evidence` (JSON). Characters that XML
        cannot hold become U+FFFD.

        Raises:
            ElectraError: E-R001 the disk is full, E-R002 the file cannot be written.
        """
        import networkx as nx

        graph = nx.MultiDiGraph()
        for node in self.nodes.values():
            graph.add_node(f"n{node.number}", label=_xml(node.label), type=_xml(node.type), mentions=node.mentions)
        for number, triple in enumerate(self.triples()):
            graph.add_edge(
                triple["subject"]["id"], triple["object"]["id"], key=f"e{number}", relation=_xml(triple["relation"]),
                score=triple["score"], count=len(triple["evidence"]),
                evidence=_xml(json.dumps(triple["evidence"], ensure_ascii=False)),
            )  # fmt: skip
        temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
        try:
            nx.write_graphml_xml(graph, temporary)  # not write_graphml, whose bytes depend on whether lxml is installed
            temporary.replace(path)
        except OSError as error:
            raise unwritable(path, error) from None
        finally:
            with suppress(OSError):
                temporary.unlink()


def _surface(text: str, mention: Mention) -> str:
    return " ".join(text[mention.start : mention.end].split())


def _key(text: str, mention: Mention) -> Key:
    return _surface(text, mention).casefold(), mention.label


def _node(node: Node) -> dict[str, str]:
    return {"id": f"n{node.number}", "label": node.label, "type": node.type}


def _evidence(found: Found, triple: Triple) -> dict[str, Any]:
    """Where it is said: file, line (where the text has one), the sentence, and the mentions by characters of the text."""
    text, where = found.example.text, found.example.where
    file, _, line = where.rpartition(":")
    place: dict[str, Any] = {"file": file, "line": int(line)} if line.isdecimal() else {"file": where, "line": None}
    start, end = triple.sentence
    return {
        **place,
        "subject": _shown(text, triple.subject),
        "object": _shown(text, triple.object),
        "sentence": text[start:end].strip(),
        "score": triple.score,
    }


def _shown(text: str, mention: Mention) -> dict[str, Any]:
    return {"word": text[mention.start : mention.end], "start": mention.start, "end": mention.end}


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
