"""Figures of a running server, in the text format of Prometheus (version 0.0.4).

Counters and histograms by name and labels; all of them are declared here, so that a name cannot be misspelt.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping

_COUNTERS = {
    "electra_requests_total": "Requests by route and status.",
    "electra_inputs_total": "Inputs that were answered.",
    "electra_truncated_tokens_total": "Tokens of inputs that did not fit and were not seen.",
    "electra_tokens_total": "Tokens that were computed.",
    "electra_compute_seconds_total": "Seconds of the worker.",
    "electra_refused_total": "Requests refused because the queue was full.",
    "electra_expired_total": "Requests whose time was over before they were answered.",
    "electra_disconnected_total": "Requests whose caller had gone before they were answered.",
    "electra_failures_total": "Failures of a model.",
}
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TOKENS = (16.0, 64.0, 256.0, 1024.0, 4096.0, 8192.0, 16384.0, 65536.0)
_HISTOGRAMS = {
    "electra_request_seconds": ("Seconds from a request's head to the end of its answer, by route.", _SECONDS),
    "electra_batch_tokens": ("Tokens of a turn of the worker.", _TOKENS),
}
_Labels = tuple[tuple[str, str], ...]


class Counters:
    """What is counted; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[_Labels, float]] = {name: defaultdict(float) for name in _COUNTERS}
        self._seen: dict[str, dict[_Labels, list[float]]] = {name: {} for name in _HISTOGRAMS}

    def add(self, name: str, value: float = 1.0, **labels: str) -> None:
        with self._lock:
            self._counts[name][tuple(sorted(labels.items()))] += value

    def observe(self, name: str, value: float, **labels: str) -> None:
        bounds = _HISTOGRAMS[name][1]
        with self._lock:
            seen = self._seen[name].setdefault(tuple(sorted(labels.items())), [0.0] * (len(bounds) + 2))
            for place, bound in enumerate(bounds):
                seen[place] += value <= bound
            seen[-2] += 1
            seen[-1] += value

    def render(self, gauges: Mapping[str, tuple[str, Mapping[str, float]]]) -> str:
        """The page.

        Args:
            gauges: what is asked now: name -> (help, values by model; "" = of all).
        """
        with self._lock:
            lines = [*self._counter_lines(), *self._histogram_lines()]
        for name, (told, values) in gauges.items():
            lines += [f"# HELP {name} {told}", f"# TYPE {name} gauge"]
            lines += [f"{name}{_braces((('model', model),) if model else ())} {value:.10g}" for model, value in values.items()]
        return "\n".join(lines) + "\n"

    def _counter_lines(self) -> Iterator[str]:
        for name, told in _COUNTERS.items():
            yield f"# HELP {name} {told}"
            yield f"# TYPE {name} counter"
            for labels, value in self._counts[name].items():
                yield f"{name}{_braces(labels)} {value:.10g}"

    def _histogram_lines(self) -> Iterator[str]:
        for name, (told, bounds) in _HISTOGRAMS.items():
            yield f"# HELP {name} {told}"
            yield f"# TYPE {name} histogram"
            for labels, seen in self._seen[name].items():
                for bound, count in zip((*(f"{bound:g}" for bound in bounds), "+Inf"), seen, strict=False):
                    yield f"{name}_bucket{_braces((*labels, ('le', bound)))} {count:.10g}"
                yield f"{name}_count{_braces(labels)} {seen[-2]:.10g}"
                yield f"{name}_sum{_braces(labels)} {seen[-1]:.10g}"


def _braces(labels: _Labels) -> str:
    if not labels:
        return ""
    escaped = ((name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
