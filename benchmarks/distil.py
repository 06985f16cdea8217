"""A student of half the depth with a teacher, against itself without one, at equal wall-clock time.

    python benchmarks/distil.py DATA WORK_DIR --teacher MODEL_DIR [--arms NAME ...] [--minutes 10 | --steps 2000] [--list]

The teacher is any model directory with a masked language modelling head; the corpus is built with its tokenizer. Students are
`modern-tiny` with half of its layers in one phase of masked language modelling: `alone`, with the teacher (`joint`,
`alternating`), and with the average of their own weights (`average`). Same text, same time or same steps; scored on held-out
text and by SST-2 (equal_budget.py). One JSON per finished arm in benchmarks/results/distil. Equal time wants an otherwise idle
machine.
"""

from __future__ import annotations

from pathlib import Path

from equal_budget import parser, run_arms

SHAPE = ("encoder.num_hidden_layers=4", "phases.rtd.share=0")
OBJECTIVE = "phases.mlm.objective"


def arms(teacher: Path) -> dict[str, list[str]]:
    masking = "masking={rate=0.15, mask_token_rate=1.0}"
    taught = f"teacher={{path='{teacher}'}}, {masking}"
    return {
        "alone": [],
        "joint": [f"{OBJECTIVE}={{type='distil', {taught}}}"],
        "alternating": [f"{OBJECTIVE}={{type='distil', updates='alternating', {taught}}}"],
        "average": [f"{OBJECTIVE}={{type='distil', teacher={{type='average'}}, {masking}}}"],
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--teacher", type=Path, required=True)
    given = options.parse_args()
    teacher = given.teacher.resolve()
    run_arms(given, arms(teacher), SHAPE, "distil", tokenizer=teacher)


if __name__ == "__main__":
    main()
