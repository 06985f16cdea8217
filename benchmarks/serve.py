"""A server under load, against its own predictor: throughput, latency, overload, dribbling clients, the end, the start, memory.

    python benchmarks/serve.py MODEL_DIR TEXTS [--part NAME ...] [--seconds S] [--overload S] [--connections N] [--short]

MODEL_DIR is a fine-tuned classifier, TEXTS a file with a text a line, or a table whose first column has them. Load comes from
`wrk` on loopback, requests of 8 texts. Parts, one JSON each in benchmarks/results/serve/; one that is there is skipped:

    throughput   texts/s of saturating load against the predictor's own over the same texts, in turns, medians of 3
    latency      p99 at half of that load against the median of single requests one after the other
    overload     ten times as many connections as requests may wait, for two minutes: statuses, memory of every second
    dribble      1,000 connections that send a byte a second: latency of others beside them, against that without
    ending       SIGTERM under load, 10 times: requests that were sent and have no answer
    start        seconds to ready beyond `import torch`; memory of one, two and three models beside the size of their weights

`--short` makes everything tiny and records nothing: to see that it runs. For `schemathesis`, which looks for 5xx by the schema,
in an environment of its own: `pip install schemathesis -t DIR`, start a server, and
`PYTHONPATH=DIR python -m schemathesis.cli run http://127.0.0.1:8000/openapi.json --checks not_a_server_error -n 100`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import itertools
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "serve"
TEXTS_OF_A_REQUEST = 8
_LUA = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
local counts, place = {}, 0
request = function()
  place = place %% #bodies + 1
  return wrk.format("POST", "/v1/m/predict", {["Content-Type"] = "application/json"}, bodies[place])
end
local threads = {}
setup = function(thread) table.insert(threads, thread) end
init = function() statuses = "" seen = {} end
response = function(status)
  seen[status] = (seen[status] or 0) + 1
  statuses = ""
  for code, count in pairs(seen) do statuses = statuses .. code .. "=" .. count .. " " end
end
done = function(summary, latency)
  for _, thread in ipairs(threads) do io.write("statuses: ", thread:get("statuses"), "\\n") end
  io.write(string.format("figures: %%d %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), summary.errors.connect + summary.errors.read + summary.errors.write, summary.errors.timeout))
end
"""


class Server:
    """`electra serve` in a process of its own; ready when it is made, `seconds` after it was started."""

    def __init__(self, *models: str, queue: int = 256) -> None:
        began = time.perf_counter()
        command = [sys.executable, "-m", "electra", "serve", *models, "--port", "0", "--queue", str(queue)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split(":")[2].split()[0])
        self.seconds = time.perf_counter() - began

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.code = self.process.wait(120)

    def memory(self, of: str = "VmRSS") -> float:
        """Resident MB; of them `RssAnon` are not pages of files, which the kernel drops when it needs room."""
        with Path(f"/proc/{self.process.pid}/status").open() as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith(of))


def wrk(server: Server, bodies: Path, connections: int, seconds: int) -> dict[str, Any]:
    """Load for some seconds: requests/s, latencies in ms, statuses, errors."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_LUA % bodies)
        script.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "60s",
            "-s",
            script.name,
            f"http://127.0.0.1:{server.port}",
        ]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    requests, duration, p50, p99, errors, late = map(int, re.search(r"figures: (.*)", told)[1].split())  # type: ignore[index]
    statuses = Counter({code: int(count) for code, count in re.findall(r"(\d+)=(\d+)", told)})
    return {
        "requests_per_second": requests / (duration / 1e6),
        "p50_ms": p50 / 1000,
        "p99_ms": p99 / 1000,
        "statuses": dict(statuses),
        "errors": errors,
        "timeouts": late,
    }


def ask(port: int, body: str, connection: http.client.HTTPConnection | None = None) -> tuple[int, float]:
    """Status and milliseconds of one request."""
    own = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    began = time.perf_counter()
    own.request("POST", "/v1/m/predict", body, {"Content-Type": "application/json"})
    response = own.getresponse()
    response.read()
    took = 1000 * (time.perf_counter() - began)
    if connection is None:
        own.close()
    return response.status, took


def single(server: Server, bodies: Sequence[str], count: int) -> list[float]:
    """Milliseconds of requests one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    times = [ask(server.port, body, connection)[1] for body in itertools.islice(itertools.cycle(bodies), count)]
    connection.close()
    return times


# -- parts --------------------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, model: Path, texts: list[str], args: argparse.Namespace, folder: Path) -> None:
        self.model, self.texts, self.args = model, texts, args
        groups = [texts[first : first + TEXTS_OF_A_REQUEST] for first in range(0, len(texts), TEXTS_OF_A_REQUEST)]
        self.bodies = [json.dumps({"inputs": group}) for group in groups if len(group) == TEXTS_OF_A_REQUEST]
        self.file = folder / "bodies"
        self.file.write_text("\n".join(self.bodies) + "\n", encoding="utf-8")

    def _server(self, copies: int = 1, queue: int = 256) -> Server:
        return Server(*(f"{'m' if copy == 0 else f'm{copy}'}={self.model}" for copy in range(copies)), queue=queue)

    def throughput(self) -> dict[str, Any]:
        from electra.predict.predictor import load

        predictor = load(self.model)
        predictor.predict(self.texts[:64])
        with self._server() as server:
            wrk(server, self.file, 16, 2)
            own, served = [], []
            for _ in range(3):
                began = time.perf_counter()
                predictor.predict(self.texts)
                own.append(len(self.texts) / (time.perf_counter() - began))
                served.append(TEXTS_OF_A_REQUEST * wrk(server, self.file, 32, self.args.seconds)["requests_per_second"])
        medians = statistics.median(own), statistics.median(served)
        return {
            "predictor_texts_per_second": medians[0],
            "server_texts_per_second": medians[1],
            "ratio": medians[1] / medians[0],
            "each": {"predictor": own, "server": served},
        }

    def latency(self) -> dict[str, Any]:
        """Half load: requests at the times of a clock, whether or not others have been answered."""
        with self._server() as server:
            single(server, self.bodies, 20)
            alone = single(server, self.bodies, 200 if not self.args.short else 20)
            full = wrk(server, self.file, 32, self.args.seconds)["requests_per_second"]
            rate = full / 2
            times: list[float] = []

            def later(place: int, begin: float) -> None:
                time.sleep(max(0.0, begin + place / rate - time.perf_counter()))
                due = begin + place / rate
                status, _ = ask(server.port, self.bodies[place % len(self.bodies)])
                assert status == 200, status
                times.append(1000 * (time.perf_counter() - due))

            with ThreadPoolExecutor(32) as pool:
                begin = time.perf_counter()
                list(pool.map(lambda place: later(place, begin), range(int(rate * self.args.seconds))))
        p99 = statistics.quantiles(times, n=100)[98]
        return {
            "single_median_ms": statistics.median(alone),
            "full_requests_per_second": full,
            "half_p50_ms": statistics.median(times),
            "half_p99_ms": p99,
            "ratio": p99 / statistics.median(alone),
        }

    def overload(self) -> dict[str, Any]:
        with self._server(queue=32) as server:
            wrk(server, self.file, 32, 2)
            memory: list[float] = [server.memory()]
            over = threading.Event()

            def watch() -> None:
                while not over.wait(1):
                    memory.append(server.memory())

            thread = threading.Thread(target=watch)
            thread.start()
            found = wrk(server, self.file, 320, self.args.overload)
            over.set()
            thread.join()
            after = ask(server.port, self.bodies[0])[0]
        half = len(memory) // 2
        return {
            "queue": 32,
            "connections": 320,
            **found,
            "status_afterwards": after,
            "memory_mb": memory,
            "memory_growth_second_half": max(memory[half:]) / max(memory[: half + 1]),
        }

    def dribble(self) -> dict[str, Any]:
        count = self.args.connections
        with self._server() as server:
            single(server, self.bodies, 20)
            before = statistics.median(single(server, self.bodies, 50))
            over, made = threading.Event(), threading.Event()

            def dribblers() -> None:
                clients: list[socket.socket | None] = [None] * count
                while not over.is_set():
                    for place in range(count):
                        try:
                            if clients[place] is None:
                                clients[place] = socket.create_connection(("127.0.0.1", server.port), timeout=5)
                                clients[place].sendall(b"POST /v1/m/predict HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")  # type: ignore[union-attr]
                            else:
                                clients[place].sendall(b"x")  # type: ignore[union-attr]
                        except OSError:
                            clients[place] = None
                    made.set()
                    over.wait(1)
                for client in clients:
                    if client is not None:
                        client.close()

            thread = threading.Thread(target=dribblers)
            thread.start()
            made.wait(60)
            times, ends = list[float](), time.monotonic() + self.args.seconds * 2
            while time.monotonic() < ends:
                times += single(server, self.bodies, 5)
            over.set()
            thread.join()
        return {
            "connections": count,
            "median_ms_without": before,
            "median_ms": statistics.median(times),
            "requests": len(times),
            "ratio": statistics.median(times) / before,
        }

    def ending(self) -> dict[str, Any]:
        answered = lost = 0
        codes = []
        for _ in range(2 if self.args.short else 10):
            with self._server() as server, ThreadPoolExecutor(16) as pool:
                asking = [pool.submit(self._until_the_end, server) for _ in range(16)]
                time.sleep(2)
                server.process.send_signal(signal.SIGTERM)
                counts = [one.result() for one in asking]
                codes.append(server.process.wait(60))
            answered, lost = answered + sum(one for one, _ in counts), lost + sum(one for _, one in counts)
        return {"answered": answered, "lost": lost, "exit_codes": codes}

    def _until_the_end(self, server: Server) -> tuple[int, int]:
        answered = lost = 0
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
            try:
                connection.connect()
            except OSError:
                return answered, lost
            with contextlib.closing(connection):
                try:
                    closing = False
                    while not closing:
                        connection.request("POST", "/v1/m/predict", self.bodies[0], {"Content-Type": "application/json"})
                        response = connection.getresponse()
                        response.read()
                        answered += response.status == 200
                        closing = response.getheader("Connection") == "close"
                except (OSError, http.client.HTTPException):
                    lost += 1

    def start(self) -> dict[str, Any]:
        torch, ready, memory, anonymous = [], [], [], []
        for _ in range(1 if self.args.short else 5):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import torch"], check=True)
            torch.append(time.perf_counter() - began)
            with self._server() as server:
                ready.append(server.seconds)
        for copies in (1, 2, 3):
            with self._server(copies) as server:
                for name in ["m", "m1", "m2"][:copies]:
                    connection = http.client.HTTPConnection("127.0.0.1", server.port)
                    connection.request("POST", f"/v1/{name}/predict", self.bodies[0], {"Content-Type": "application/json"})
                    connection.getresponse().read()
                    connection.close()
                memory.append(server.memory())
                anonymous.append(server.memory("RssAnon"))
        weights = sum(file.stat().st_size for file in self.model.glob("*.safetensors")) / 2**20
        return {
            "import_torch_s": statistics.median(torch),
            "ready_s": statistics.median(ready),
            "beyond_torch_s": statistics.median(ready) - statistics.median(torch),
            "memory_mb": memory,
            "weights_mb": weights,
            "extra_model_mb": (memory[2] - memory[0]) / 2,
            "extra_model_mb_without_files": (anonymous[2] - anonymous[0]) / 2,
        }


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    name: getattr(Bench, name) for name in ("throughput", "latency", "overload", "dribble", "ending", "start")
}


def texts_of(file: Path, count: int) -> Iterator[str]:
    with file.open(encoding="utf-8") as lines:
        texts = (line.split("\t")[0].strip() for line in lines)
        yield from itertools.islice(filter(None, texts), count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--overload", type=int, default=120)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    if args.short:
        args.seconds, args.overload, args.connections = 2, 4, 50
    from electra.train import machine

    RESULTS.mkdir(parents=True, exist_ok=True)
    texts = list(texts_of(args.texts, 200 if args.short else 1600))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.model, texts, args, Path(folder))
        for name in args.part or PARTS:
            there = sorted(RESULTS.glob(f"{name}-*.json"))
            if there and not args.short:
                print(f"{name}: there already, {there[-1].name}")
                continue
            found = PARTS[name](bench)
            print(name, json.dumps({key: value for key, value in found.items() if key not in ("memory_mb", "each")}))
            if not args.short:
                today = datetime.date.today().isoformat()
                record = {
                    "date": today,
                    "machine": {**machine.describe(), "cores": os.cpu_count(), "load": os.getloadavg()},
                    "texts": len(texts),
                    "texts_of_a_request": TEXTS_OF_A_REQUEST,
                    **found,
                }
                (RESULTS / f"{name}-{today}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
