"""What looking for duplicates costs: text through `filters.filtered` without, with exact and with near duplicates.

    python benchmarks/duplicates.py [--megabytes 10 500] [--work DIR] [--no-save]

The text is made: documents of 40 to 400 words that are drawn as they are in English (Zipf), every tenth a copy of an earlier
one, of which every second has a few words changed. Reading and cleaning are a part of every figure, tokenising is of none. Each
figure comes from a process of its own: megabytes of text per second of processor time (so that neighbours on the machine do
not count), and the peak of its memory. Prints them, and writes benchmarks/results/duplicates-DATE.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np

KINDS = ("none", "exact", "near")


def documents(size: int) -> Iterator[str]:
    """Documents of `size` bytes together."""
    chance = np.random.default_rng(0)
    words = np.array([f"{number:x}".translate(str.maketrans("0123456789", "ghijklmnop")) for number in range(1, 100_000)])
    earlier, written = deque[list[str]](maxlen=1000), 0
    while written < size:
        if earlier and chance.random() < 0.1:
            text = list(earlier[chance.integers(len(earlier))])
            if chance.random() < 0.5:
                for place in chance.integers(len(text), size=len(text) // 100 + 1):
                    text[place] = str(words[chance.integers(len(words))])
        else:
            ranks = np.minimum(chance.zipf(1.2, chance.integers(40, 400)), len(words)) - 1
            text = words[ranks].tolist()
            earlier.append(text)
        yield " ".join(text)
        written += sum(map(len, text)) + len(text)


def measure(path: Path, kind: str, work: Path) -> dict[str, float]:
    """Read `path` once through the filters, in this process."""
    from electra.text.drops import Drops
    from electra.text.filters import FilterOptions, filtered
    from electra.text.readers import read

    drops, started, before = Drops(), time.perf_counter(), time.process_time()
    options = FilterOptions(duplicates=kind)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(dir=work) as scratch:  # what is found there is not looked for again
        kept = sum(1 for _ in filtered(lambda drops: read([path], drops), options, Path(scratch), drops))
    seconds, cpu = time.perf_counter() - started, time.process_time() - before
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {
        "documents": kept + sum(count for cause, count in drops.total.counts.items() if cause.startswith("dropped")),
        "kept": kept,
        "disk_bytes_per_document": options.bytes_per_document,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "mb_per_cpu_second": round(path.stat().st_size / cpu / 1e6, 1),
        "peak_mb": round(peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 500])
    parser.add_argument("--work", type=Path, default=None, help="a directory on the disk to measure; none = a temporary one")
    parser.add_argument("--no-save", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(Path(given.measure[0]), given.measure[1], given.work)))
        return
    work, rows = Path(tempfile.mkdtemp(dir=given.work)), []
    for size in given.megabytes:
        path = work / f"{size}.txt"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{text}\n\n" for text in documents(size * 10**6))
        for kind in KINDS:
            command = [sys.executable, __file__, "--work", str(work), "--measure", str(path), kind]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({"megabytes": size, "duplicates": kind, **figures})
            print(rows[-1], flush=True)
        path.unlink()
    shutil.rmtree(work)
    if not given.no_save:
        date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        out = Path(__file__).parent / "results" / f"duplicates-{date}.json"
        result = {"date": date, "cores": os.cpu_count(), "load_average": os.getloadavg(), "rows": rows}
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"written: {out}")


if __name__ == "__main__":
    main()
