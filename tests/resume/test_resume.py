"""A run that is stopped or killed at any moment and started again ends bit by bit where an uninterrupted one ends.

Every run is the command line in a process of its own, forked from a server that has imported torch but never computed
anything, so that threads are safe and a process costs milliseconds.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any

import pytest

from electra.storage import file_hash
from electra.text import build
from electra.text.tokenizer import load

STEPS = 40
MICRO_BATCHES = 2
# 2 threads, bf16, dropout, accumulation: all at once
SETTINGS = [f"stop.steps={STEPS}", "batch.micro_rows=4", "precision=bf16", "loop.log_steps=3", "loop.save_minutes=0.004"]
MODERN_DROPOUT = ["encoder.mlp_dropout=0.1", "encoder.attention_dropout=0.1", "encoder.embedding_dropout=0.1"]
RECIPES = {"test-classic": [], "test-modern": MODERN_DROPOUT}
# what the clock says
CLOCK = {"time", "seconds", "tokens_per_second"}

Moment = tuple[str, str, int, list[int]]


def forward(objective: str, step: int, micro_batch: int, signals: list[int]) -> Moment:
    """When step `step` of a phase (counted from 0) runs `micro_batch`.

    A new run begins with two small forward passes, which say what memory it takes, and a dry batch, which is one step.
    """
    module, name = f"electra.objectives.{objective}", f"{objective.capitalize()}.forward"
    return module, name, 2 + (step + 1) * MICRO_BATCHES + micro_batch + 1, signals


def again(objective: str, calls: int, signals: list[int]) -> Moment:
    """As `forward`, in a resumed run, which has no dry batch: after so many micro-batches."""
    return f"electra.objectives.{objective}", f"{objective.capitalize()}.forward", calls + 1, signals


@dataclass(frozen=True)
class Ended:
    """All that a run leaves behind, but for the clock."""

    files: dict[str, str]
    steps: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]

    @classmethod
    def of(cls, run: Path) -> Ended:
        newest = max((run / "checkpoints").iterdir())
        files = {path.name: file_hash(path) for path in newest.glob("*.safetensors")}
        models = {str(path.relative_to(run)): file_hash(path) for path in run.glob("model/**/*.safetensors")}
        events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
        timeless = [{key: value for key, value in event.items() if key not in CLOCK} for event in events]
        return cls(
            files={"step": newest.name} | files | models,
            steps=[event for event in timeless if event["event"] == "step"],
            verdicts=[event for event in timeless if event["event"] == "verdict"],
        )


@dataclass(frozen=True)
class Runner:
    """A command with its run directory.

    Args:
        argv: verb, recipes and settings, without run.dir.
    """

    context: ForkServerContext
    argv: list[str]
    directory: Path

    def run(self, *moments: Moment, file_limit: int = -1) -> int:
        """The exit code of one start; negative = ended by that signal. No file may grow over `file_limit` bytes (-1 = any)."""
        given = {
            "argv": [*self.argv, f"run.dir={self.directory}"],
            "threads": 2,
            "log": f"{self.directory}.log",
            "file_limit": file_limit,
            "moments": list(moments),
        }
        script = str(Path(__file__).with_name("child.py"))
        child = self.context.Process(target=runpy.run_path, args=(script, {"GIVEN": given}, "__main__"))
        child.start()
        child.join(100)
        assert child.exitcode is not None, "it hangs"
        return child.exitcode

    def output(self) -> str:
        return Path(f"{self.directory}.log").read_text(encoding="utf-8")

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (self.directory / "events.jsonl").read_text(encoding="utf-8").splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == name]


def pretrain(recipe: str, corpus: Path) -> list[str]:
    return ["pretrain", recipe, f"corpus.path={corpus}", *SETTINGS, *RECIPES[recipe]]


@pytest.fixture
def runner(server: ForkServerContext, corpus_dir: Path, tmp_path: Path) -> Callable[[str], Runner]:
    return lambda recipe: Runner(server, pretrain(recipe, corpus_dir), tmp_path / "run")


@pytest.fixture(scope="module")
def whole(server: ForkServerContext, corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a run of a recipe to which nothing happened."""
    known: dict[str, Path] = {}

    def directory(recipe: str) -> Path:
        if recipe not in known:
            run = Runner(server, pretrain(recipe, corpus_dir), tmp_path_factory.mktemp("whole") / "run")
            assert run.run() == 0, run.output()
            known[recipe] = run.directory
        return known[recipe]

    return directory


@pytest.fixture(scope="module")
def uninterrupted(whole: Callable[[str], Path]) -> Callable[[str], Ended]:
    """What a run of a recipe leaves behind when nothing happens to it."""
    return lambda recipe: Ended.of(whole(recipe))


def test_the_log_compared_is_not_empty(uninterrupted: Callable[[str], Ended]) -> None:
    for recipe in RECIPES:
        ended = uninterrupted(recipe)
        assert [event["step"] for event in ended.steps][-1] == STEPS
        assert len(ended.steps) >= STEPS // 3
        assert {"model.safetensors", "optimizer.safetensors", "model/model.safetensors"} <= set(ended.files)


@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_and_resumed_equals_uninterrupted(
    recipe: str, runner: Callable[[str], Runner], uninterrupted: Callable[[str], Ended]
) -> None:
    run = runner(recipe)
    first = "rtd" if recipe == "test-classic" else "mlm"
    assert run.run(forward(first, 8, 0, [SIGTERM])) == 75, run.output()
    assert run.run(again(first, 9 * MICRO_BATCHES + 1, [SIGKILL])) == -SIGKILL  # in the middle of step 17
    assert not (run.directory / "model").exists()
    assert run.run() == 0, run.output()
    assert [event["resumed"] for event in run.events("start")][-1]
    assert Ended.of(run.directory) == uninterrupted(recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_stopped_in_mid_accumulation(
    recipe: str, runner: Callable[[str], Runner], uninterrupted: Callable[[str], Ended]
) -> None:
    run = runner(recipe)
    first = "rtd" if recipe == "test-classic" else "mlm"
    # in step 7, which no log line ends: the window goes through the checkpoint
    assert run.run(forward(first, 7, 0, [SIGTERM])) == 75, run.output()
    assert "stopped; the state is saved" in run.output()
    assert run.events("stop")[-1]["step"] == 7
    assert run.run(again(first, 5 * MICRO_BATCHES, [SIGINT])) == 75, run.output()
    assert run.events("stop")[-1]["step"] == 12
    # at once after the start: nothing new is to be saved
    assert run.run(again(first, 0, [SIGTERM])) == 75, run.output()
    assert run.run() == 0, run.output()
    assert Ended.of(run.directory) == uninterrupted(recipe)


def test_two_sources_killed_and_resumed(
    server: ForkServerContext, corpus_dir: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    """Shares of 5 to 2, so that no step begins where a period does, and several epochs of the smaller source."""
    other = tmp_path / "other"
    text = "\n\n".join(f"the {word} walks slowly over the quiet bridge." for word in ("reader", "gardener", "captain", "dog"))
    (tmp_path / "other.txt").write_text(text, encoding="utf-8")
    build.build([tmp_path / "other.txt"], load(tokenizer_dir), other)
    sources = f"[{{name='main', path='{corpus_dir}', weight=5}}, {{name='other', path='{other}', weight=2}}]"
    argv = ["pretrain", "test-classic", f"corpus.sources={sources}", "rows.length=16", *SETTINGS]
    whole, run = (Runner(server, argv, tmp_path / name) for name in ("whole", "run"))
    assert whole.run() == 0, whole.output()
    assert run.run(forward("rtd", 8, 1, [SIGTERM])) == 75, run.output()
    assert run.run(again("rtd", 9 * MICRO_BATCHES + 1, [SIGKILL])) == -SIGKILL
    assert run.run() == 0, run.output()
    assert Ended.of(run.directory) == Ended.of(whole.directory)
    epochs = run.events("step")[-1]["epochs"]
    assert epochs["other"] > 2 > epochs["main"] > 0


def test_stops_around_the_change_of_phase(runner: Callable[[str], Runner], uninterrupted: Callable[[str], Ended]) -> None:
    run = runner("test-modern")
    # in the last micro-batch of the first phase: that step is finished, the next one is not begun
    assert run.run(forward("mlm", 23, 1, [SIGTERM])) == 75, run.output()
    assert run.events("stop")[-1]["step"] == 24
    assert (run.directory / "phases" / "mlm").is_dir()
    # the second phase, begun again from the model of the first
    assert run.run(again("rtd", 1, [SIGKILL])) == -SIGKILL  # in its first step, behind which a slow machine would save
    assert run.run(again("rtd", 6 * MICRO_BATCHES, [SIGTERM])) == 75, run.output()
    assert run.events("stop")[-1]["step"] == 30
    assert run.run() == 0, run.output()
    assert Ended.of(run.directory) == uninterrupted("test-modern")


def test_killed_while_a_phase_exports(runner: Callable[[str], Runner], uninterrupted: Callable[[str], Ended]) -> None:
    run = runner("test-modern")
    assert run.run(("electra.objectives.mlm", "Mlm.export", 1, [SIGKILL])) == -SIGKILL
    assert run.run(("electra.objectives.rtd", "Rtd.export", 1, [SIGKILL])) == -SIGKILL
    assert not (run.directory / "model").exists()
    assert run.run() == 0, run.output()
    assert Ended.of(run.directory) == uninterrupted("test-modern")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("electra.train.checkpoint", "write_json"),  # tensors are written, the state is not
        ("electra.storage", "_seal"),  # all is written, nothing is synced
        ("electra.storage", "_replace"),  # sealed, not in place
        ("electra.train.checkpoint", "Checkpoints._prune"),  # in place, the old ones are there, too
    ],
)
def test_killed_during_a_save(
    module: str, name: str, runner: Callable[[str], Runner], uninterrupted: Callable[[str], Ended]
) -> None:
    run = runner("test-classic")
    assert run.run(forward("rtd", 5, 0, [SIGTERM])) == 75, run.output()
    assert run.run((module, name, 1, [SIGKILL])) == -SIGKILL
    assert run.run() == 0, run.output()
    assert [path.name for path in (run.directory / "checkpoints").iterdir() if path.name.startswith(".")] == []
    assert Ended.of(run.directory) == uninterrupted("test-classic")


def test_a_second_signal_ends_the_run_at_once(runner: Callable[[str], Runner], uninterrupted: Callable[[str], Ended]) -> None:
    run = runner("test-classic")
    assert run.run(forward("rtd", 4, 1, [SIGTERM, SIGTERM])) == -SIGTERM
    assert run.events("stop") == []
    assert run.run() == 0, run.output()
    assert Ended.of(run.directory) == uninterrupted("test-classic")


def test_a_finished_run_that_is_started_again_stays_as_it_is(runner: Callable[[str], Runner]) -> None:
    run = runner("test-classic")
    assert run.run() == 0, run.output()
    before = Ended.of(run.directory)
    assert run.run() == 0, run.output()
    assert Ended.of(run.directory) == before


def test_a_full_disk_leaves_the_last_checkpoint_and_exits_4(
    runner: Callable[[str], Runner], uninterrupted: Callable[[str], Ended]
) -> None:
    run = runner("test-classic")
    assert run.run(forward("rtd", 5, 0, [SIGTERM])) == 75
    kept = {path.name: file_hash(path) for path in (run.directory / "checkpoints").rglob("*") if path.is_file()}
    assert run.run(again("rtd", 6 * MICRO_BATCHES, [SIGTERM]), file_limit=200_000) == 4, run.output()
    assert "error: E-R001" in run.output()
    assert "Traceback" not in run.output()
    left = {path.name: file_hash(path) for path in (run.directory / "checkpoints").rglob("*") if path.is_file()}
    assert left == kept
    assert run.run() == 0, run.output()
    assert Ended.of(run.directory) == uninterrupted("test-classic")


@pytest.fixture(scope="module")
def tuning(whole: Callable[[str], Path], documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two languages to tell apart, two epochs of 8 steps, the last of which has fewer examples."""
    place = tmp_path_factory.mktemp("labels")
    rows = [f"{'en' if document.isascii() else 'zh'}\t{document}" for document in documents[:120]]
    (place / "train.tsv").write_text("label\ttext\n" + "\n".join(rows[:58]) + "\n", encoding="utf-8")
    (place / "dev.tsv").write_text("label\ttext\n" + "\n".join(rows[90:]) + "\n", encoding="utf-8")
    model = whole("test-classic") / "model"
    files = [f"init.from={model}", f"data.train={place / 'train.tsv'}", f"data.dev={place / 'dev.tsv'}"]
    return ["finetune", "task=classify", *files, "epochs=2", "batch.examples=8", "batch.micro_tokens=256", "precision=bf16"]


def test_fine_tuning_killed_and_stopped_during_and_after_evaluation(
    server: ForkServerContext, tuning: list[str], tmp_path: Path
) -> None:
    undisturbed, run = (
        Runner(server, [*tuning, "loop.log_steps=3", "loop.save_minutes=0.001"], tmp_path / name) for name in ("whole", "run")
    )
    assert undisturbed.run() == 0, undisturbed.output()
    assert [event["step"] for event in undisturbed.events("evaluate")] == [8, 16]
    forwards = "electra.objectives.supervised", "Supervised.forward"
    assert run.run((*forwards, 12, [SIGTERM])) == 75, run.output()  # the first ones are of the dry batch
    assert not (run.directory / "model").exists(), "nothing was evaluated yet"
    batches = "electra.tasks.common", "TaskNetwork.forward"
    evaluation = "electra.build.finetune", "judged"
    assert run.run((*evaluation, 1, [SIGKILL])) == -SIGKILL
    assert run.run((*evaluation, 1, [SIGTERM])) == 75, run.output()  # before its first batch
    assert run.events("stop")[-1]["step"] == 8
    assert run.events("evaluate") == []
    assert run.run((*batches, 2, [SIGTERM])) == 75, run.output()  # the evaluation of step 8 again, and a step
    assert (run.directory / "model" / "task.json").is_file(), "what is best so far"
    assert run.run((*evaluation, 1, [SIGKILL])) == -SIGKILL  # after the last step, before its checkpoint
    assert run.run() == 0, run.output()
    assert Ended.of(run.directory) == Ended.of(undisturbed.directory)
    scores = [[(event["figures"], event["best"]) for event in each.events("evaluate")] for each in (run, undisturbed)]
    assert scores[0] == scores[1]


def test_the_best_model_outlives_kills(server: ForkServerContext, tuning: list[str], tmp_path: Path) -> None:
    """A rate so high that the first of eight evaluations is not the last's equal; patience, frozen layers."""
    often = ["evaluation.steps=2", "evaluation.patience=5", "optimizer.lr=0.02", "freeze=1", "loop.save_minutes=100"]
    undisturbed, run = (Runner(server, [*tuning, *often], tmp_path / name) for name in ("whole", "run"))
    assert undisturbed.run() == 0, undisturbed.output()
    [done] = undisturbed.events("done")
    assert 0 < done["best"]["step"] < done["step"], "a setting where the last is not the best"
    evaluation = "electra.build.finetune", "judged"
    for call, signal in ((2, SIGKILL), (3, SIGKILL), (2, SIGTERM), (2, SIGKILL)):
        assert run.run((*evaluation, call, [signal])) in (-SIGKILL, 75), run.output()
    assert run.run() == 0, run.output()
    assert Ended.of(run.directory) == Ended.of(undisturbed.directory)
    assert run.events("done")[-1]["best"] == done["best"]


def test_runs_of_runs_go_on_where_they_were_stopped(server: ForkServerContext, tuning: list[str], tmp_path: Path) -> None:
    several = ["seeds=2", "search.lr=[1e-5,0.02]", "epochs=1"]
    undisturbed, run = (Runner(server, [*tuning, *several], tmp_path / name) for name in ("whole", "run"))
    assert undisturbed.run() == 0, undisturbed.output()
    names = [event["name"] for event in undisturbed.events("run")]
    assert [name for name in names if not name.endswith("retry")] == ["lr-1e-05", "lr-0.02", "seed-1"]
    steps = "electra.train.loop", "Optimizers.step"
    assert run.run((*steps, 5, [SIGTERM])) == 75, run.output()
    assert not (run.directory / "model").exists()
    assert run.run((*steps, 8, [SIGTERM])) == 75, run.output()  # in the second rate
    assert (run.directory / "model" / "task.json").is_file(), "of the first rate"
    assert run.run((*steps, 10, [SIGKILL])) == -SIGKILL  # in the last run
    finished = {path: path.stat().st_mtime_ns for path in (run.directory / "lr-0.02").rglob("*")}
    assert run.run() == 0, run.output()
    assert {path: path.stat().st_mtime_ns for path in (run.directory / "lr-0.02").rglob("*")} == finished
    for name in names:  # those that collapsed were run again
        assert Ended.of(run.directory / name) == Ended.of(undisturbed.directory / name)
    summaries = [json.loads((each.directory / "summary.json").read_text(encoding="utf-8")) for each in (run, undisturbed)]
    assert summaries[0] == summaries[1]
    assert file_hash(run.directory / "model" / "model.safetensors") == file_hash(
        undisturbed.directory / "model" / "model.safetensors"
    )
