"""A real server on a real socket, in a forked process: tiny models of every task."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from electra.contracts import Batch
from electra.deploy.served import ServedModel, open_model, open_models
from electra.deploy.server import serve
from electra.deploy.settings import ServeSettings
from electra.models.classic import ClassicConfig
from electra.models.encoder import build_encoder
from electra.models.heads import CausalHead, MlmHead, RtdHead
from electra.models.model_dir import Provenance, save_model_dir
from electra.models.modern import ModernConfig
from electra.tasks import task_config
from electra.text.train_tokenizer import train as train_tokenizer

SENTENCES = ["the good film was bad", "Bill was born in Seattle", "who was born", "* @ # ^ , . ! ? ~ $ %"]
TOKENIZER = train_tokenizer(SENTENCES * 3, vocab_size=160)
CONFIG = ClassicConfig(
    vocab_size=TOKENIZER.vocab_size, embedding_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=64,
)  # fmt: skip
MODERN = ModernConfig(vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                      intermediate_size=24, max_position_embeddings=64)  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "sentiment": {"type": "classify", "labels": ["bad", "good"], "max_length": 32, "pairs": False},
    "topics": {"type": "multilabel", "labels": ["film", "place"], "max_length": 32},
    "similar": {"type": "regression", "range": [0.0, 5.0], "max_length": 32, "pairs": True},
    "names": {"type": "tag", "labels": ["PER", "LOC"], "tagged": "spans", "max_length": 32},
    "answers": {"type": "span", "max_length": 64, "question_tokens": 16, "stride": 16, "unanswerable": True},
    "relations": {"type": "relation", "labels": ["born_in", "none"], "none": "none", "types": False, "max_length": 32},
    "endings": {"type": "choice", "max_length": 32},
    "vectors": {"type": "embed", "max_length": 16},
}


@pytest.fixture(scope="session")
def model_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of every task, a pre-trained pair, and a causal model, by name."""
    folder = tmp_path_factory.mktemp("models")
    provenance = Provenance(tokenizer=TOKENIZER, card=lambda: "# A model\n")
    torch.manual_seed(0)
    for name, tree in TASKS.items():
        task = task_config(tree).build(TOKENIZER)
        encoder = build_encoder(CONFIG)
        head = task.head(encoder)  # type: ignore[union-attr]
        save_model_dir(folder / name, encoder=encoder, provenance=provenance, head=head if head.state_dict() else None,
                       labels=task.labels, task=task.to_json())  # type: ignore[union-attr] # fmt: skip
    encoder, generator = build_encoder(CONFIG), build_encoder(CONFIG)
    save_model_dir(folder / "pair", encoder=encoder, provenance=provenance, head=RtdHead(CONFIG),
                   generator=(generator, MlmHead(CONFIG)))  # fmt: skip
    save_model_dir(folder / "writer", encoder=build_encoder(MODERN), provenance=provenance, head=CausalHead(MODERN))
    open_model("warm", folder / "sentiment")  # what the first one imports, forked servers need not
    return {name: folder / name for name in (*TASKS, "pair", "writer")}


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


@dataclass
class Server:
    """A server in a process of its own."""

    pid: int
    port: int
    log: Path
    ended: int | None = field(default=None)

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None, wait: float = 30
    ) -> Reply:
        """One request on a connection of its own; a body that is no bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=wait)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            sent = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, data, {**sent, **(headers or {})})
            response = connection.getresponse()
            return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: object, **headers: str) -> Reply:
        return self.ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def predict(self, model: str, *inputs: Any, **more: Any) -> Reply:
        return self.post(f"/v1/{model}/predict", {"inputs": list(inputs), **more})

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def figure(self, name: str) -> float:
        """The sum of a figure of /metrics over its labels."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def signal(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 30) -> int:
        """Its exit code; -signal if one killed it."""
        until(lambda: self._over(), seconds)
        assert self.ended is not None
        return self.ended

    def _over(self) -> bool:
        if self.ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.ended = os.waitstatus_to_exitcode(status) if pid else None
        return self.ended is not None

    def kill(self) -> None:
        if not self._over():
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


def until(true: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.005)


Start = Callable[..., Server]


def fork(models: Callable[[], Sequence[ServedModel]], settings: ServeSettings, log: Path) -> Server:
    """A server that is ready."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
            out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stderr = os.fdopen(2, "w")
            serve(models, settings, lambda line: os.write(writing, f"{line}\n".encode()) and None)
            code = 0
        except BaseException as error:
            os.write(2, repr(error).encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as lines:
        first = lines.readline()
        assert first.startswith("serving http://"), log.read_text(encoding="utf-8")
    return Server(pid, int(first.split("://")[1].split(" ")[0].rsplit(":", 1)[1]), log)


@pytest.fixture(scope="session")
def _started() -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def server(model_dirs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, _started: list[Server]) -> Server:
    """One for all tests that leave it as it was."""
    arguments = [str(path) for path in model_dirs.values()]
    settings = ServeSettings(port=0, log=True)
    _started.append(fork(lambda: open_models(arguments), settings, tmp_path_factory.mktemp("log") / "log"))
    return _started[-1]


@pytest.fixture
def start(model_dirs: dict[str, Path], tmp_path: Path) -> Iterator[Start]:
    """Start a server of one's own: of some models by name, or of what `models` gives."""
    servers: list[Server] = []

    def begin(*names: str, models: Callable[[], Sequence[ServedModel]] | None = None, **settings: Any) -> Server:
        arguments = [str(model_dirs[name]) for name in names]
        made = ServeSettings(**{"port": 0, **settings})
        servers.append(fork(models or (lambda: open_models(arguments)), made, tmp_path / f"log{len(servers)}"))
        return servers[-1]

    yield begin
    for one in servers:
        one.kill()


#: a word whose rows the failing network cannot read, one token each time
BAD_WORD = TOKENIZER.encode("Seattle").ids[1]


class Held(nn.Module):
    """A network that says what it reads, waits while a file is there, and fails on one token.

    Args:
        network: reads.
        notes: a folder: `hold` keeps it waiting, `batches` gets the number of rows of each batch, with its name.
        name: its own.
    """

    def __init__(self, network: nn.Module, notes: Path, name: str) -> None:
        super().__init__()
        self.network, self.notes, self.name = network, notes, name

    def forward(self, batch: Batch) -> Tensor:
        rows = len(batch.tokens) if batch.tokens.ndim > 1 else len(batch.layout.cu_seqlens) - 1  # type: ignore[union-attr]
        with (self.notes / "batches").open("a") as out:
            out.write(f"{self.name} {rows}\n")
        until(lambda: not (self.notes / "hold").exists(), 60)
        if (batch.tokens == BAD_WORD).any():
            raise RuntimeError("this text cannot be read: xylophonist")
        if (self.notes / "nan").exists():
            return self.network(batch) * torch.nan
        found: Tensor = self.network(batch)
        return found


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "batches").write_text("")
    return tmp_path


@pytest.fixture
def held(start: Start, model_dirs: dict[str, Path], notes: Path) -> Callable[..., Server]:
    """A server of classifiers whose networks are held, by names."""

    def begin(*names: str, **settings: object) -> Server:
        def models() -> Sequence[ServedModel]:
            opened = [open_model(name, model_dirs["sentiment"]) for name in names]
            for model in opened:
                predictor = model.skill().predictor
                predictor.network = Held(predictor.network, notes, model.name).eval()
            return opened

        return start(models=models, **settings)

    return begin
