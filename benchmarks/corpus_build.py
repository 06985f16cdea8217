"""Text files to token ids on disk: `electra corpus build` against `datasets.map`, interleaved in one run; and its memory.

    python benchmarks/corpus_build.py DATA [--rounds 3] [--peer PYTHON] [--no-save]
    python benchmarks/corpus_build.py DATA --memory

DATA is a folder of .txt files with blank-line documents, 50 MB or so; a WordPiece tokenizer of 16,000 entries is trained on it
first. The peer needs `datasets`, which is no dependency: `--peer` names a Python that has it and `tokenizers`.

Both sides use two processes, the same tokenizer and the same documents, and store the ids of every document with [CLS] and
[SEP]; how many there are is written down for both. Ours is the command as users give it, the start of the process included; it
also cleans, finds sentences, shuffles, hashes and syncs. The peer is `Dataset.map(batched=True, num_proc=2)` in a process that
has imported everything; timed are the map alone, which leaves its output on the disk, and the way from text files to
`save_to_disk`. It calls the tokenizers library directly (`encode_batch_fast`, which keeps no offsets, is its fastest way).

`--memory` builds 10, 50 and 500 MB, DATA over and over, without and with `--duplicates near`, and prints the sum of the peaks
of the build's processes. With duplicates most of the 500 MB are read, compared and dropped.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

VOCABULARY, PROCESSES = 16_000, 2
PEER = """
import json, shutil, sys, time
from datasets import disable_progress_bars, load_dataset
from tokenizers import Tokenizer

disable_progress_bars()
data, tokenizer, work = sys.argv[1:]
backend = Tokenizer.from_file(tokenizer)

def encode(batch):
    return {"input_ids": [encoding.ids for encoding in backend.encode_batch_fast(batch["text"])]}

for line in sys.stdin:
    began = time.perf_counter()
    texts = load_dataset("text", data_files=data + "/*.txt", sample_by="paragraph", split="train", cache_dir=work + "/cache")
    loaded = time.perf_counter()
    ids = texts.map(encode, batched=True, num_proc=2, remove_columns=["text"])
    mapped = time.perf_counter()
    ids.save_to_disk(work + "/saved")
    saved = time.perf_counter()
    total = sum(map(len, ids["input_ids"]))
    print(json.dumps({"map": mapped - loaded, "all": saved - began, "documents": len(ids), "tokens": total}), flush=True)
    shutil.rmtree(work)
"""


def electra(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "electra", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def build(data: Path, work: Path) -> list[str | Path]:
    return ["corpus", "build", data, "--tokenizer", work / "tokenizer", "--out", work / "corpus", "--workers", str(PROCESSES)]


def ours(data: Path, work: Path) -> dict[str, Any]:
    began = time.perf_counter()
    electra(*build(data, work))
    seconds = time.perf_counter() - began
    manifest = json.loads((work / "corpus" / "manifest.json").read_text(encoding="utf-8"))
    shutil.rmtree(work / "corpus")
    return {"all": seconds, "documents": manifest["documents"], "tokens": manifest["tokens"]}


def compare(data: Path, work: Path, given: argparse.Namespace) -> None:
    """Both sides in turn, medians, ratios."""
    try:
        subprocess.run([given.peer, "-c", "import datasets, tokenizers"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        sys.exit("the peer needs the package datasets: pip install datasets tokenizers, and name that Python with --peer")
    arguments = [given.peer, "-c", PEER, str(data.resolve()), str(work / "tokenizer" / "tokenizer.json"), str(work / "peer")]
    peer = subprocess.Popen(arguments, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert peer.stdin is not None
    assert peer.stdout is not None
    taken: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for number in range(given.rounds + 1):
        print(file=peer.stdin, flush=True)
        answers = {"peer": json.loads(peer.stdout.readline()), "ours": ours(data, work)}
        for side, answer in answers.items():
            print(side, answer)
            if number:  # the first round warms up
                taken[side].append(answer)
    peer.stdin.close()
    peer.wait()
    report(taken, sum(path.stat().st_size for path in data.glob("*.txt")), given)


def report(taken: dict[str, list[dict[str, Any]]], size: int, given: argparse.Namespace) -> None:
    """Print the comparison, and write it down."""
    from electra.train.machine import describe

    rows = []
    for name, side, part in [("electra corpus build", "ours", "all"), ("datasets.map", "peer", "map"),
                             ("load, map, save_to_disk", "peer", "all")]:  # fmt: skip
        seconds = [answer[part] for answer in taken[side]]
        median = statistics.median(seconds)
        rows.append({"side": name, "median_s": round(median, 2), "megabytes_per_second": round(size / 1e6 / median, 1),
                     "seconds": [round(value, 2) for value in seconds]})  # fmt: skip
    ratios = {row["side"]: round(row["median_s"] / rows[0]["median_s"], 2) for row in rows[1:]}
    for row in rows:
        print(f"{row['side']:24} {row['median_s']:6.2f} s, {row['megabytes_per_second']} MB/s")
    for name, ratio in ratios.items():
        print(f"{ratio}x the speed of {name}")
    save(given, "build", {"megabytes": round(size / 1e6), "vocabulary": VOCABULARY, "processes": PROCESSES,
                          "documents": taken["ours"][0]["documents"], "tokens": taken["ours"][0]["tokens"],
                          "peer": {key: taken["peer"][0][key] for key in ("documents", "tokens")},
                          "ratios": ratios, "sides": rows} | {"machine": describe() | {"cores": os.cpu_count()}})  # fmt: skip


def memory(data: Path, work: Path, given: argparse.Namespace) -> None:
    """Peak memory for inputs of 10, 50 and 500 MB, without and with a look for duplicates."""
    text = b"\n\n".join(path.read_bytes() for path in sorted(data.glob("*.txt")))
    rows = []
    for megabytes in (10, 50, 500):
        source, size = work / "long.txt", megabytes * 1_000_000
        with source.open("wb") as file:
            while file.tell() < size:
                piece = text[: size - file.tell()]
                file.write(piece if len(piece) == len(text) else piece[: piece.rfind(b"\n")] + b"\n" * 2)
                if len(piece) < len(text):
                    break
        for duplicates in ("none", "near"):
            began = time.perf_counter()
            peaks = peaks_of([*build(source, work), "--duplicates", duplicates])
            shutil.rmtree(work / "corpus")
            rows.append({"megabytes": megabytes, "duplicates": duplicates, "peak_mb": round(sum(peaks) / 1024),
                         "of_each_mb": [round(peak / 1024) for peak in peaks], "processes": len(peaks),
                         "seconds": round(time.perf_counter() - began, 1)})  # fmt: skip
            print(rows[-1], flush=True)
    save(given, "memory", {"rows": rows})


def peaks_of(arguments: list[str | Path]) -> list[int]:
    """The peak memory, in kB, of each process of a command."""
    process = subprocess.Popen([sys.executable, "-m", "electra", *map(str, arguments)], stdout=subprocess.DEVNULL)
    peaks = dict[int, int]()
    watching = threading.Thread(target=watch, args=(process.pid, peaks))
    watching.start()
    if process.wait():
        sys.exit("the build failed")
    watching.join()
    return list(peaks.values())


def watch(process: int, peaks: dict[int, int]) -> None:
    """The peak memory, in kB, of a process and its children, until it ends."""
    while True:
        try:
            family = [process, *map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())]
        except OSError:
            return
        for member in family:
            try:
                status = Path(f"/proc/{member}/status").read_text()
            except OSError:
                continue
            if "VmHWM:" in status:
                peaks[member] = int(status.split("VmHWM:")[1].split()[0])
        time.sleep(0.02)


def save(given: argparse.Namespace, name: str, result: dict[str, Any]) -> None:
    if given.no_save:
        return
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    path = Path(__file__).parent / "results" / f"corpus_{name}-{date}.json"
    result = {"date": date, "load_average": os.getloadavg()} | result
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--no-save", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        electra("tokenizer", "train", given.data, "--vocab-size", str(VOCABULARY), "--out", work / "tokenizer")
        (memory if given.memory else compare)(given.data, work, given)


if __name__ == "__main__":
    main()
