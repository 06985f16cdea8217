"""Options of the loop that have to prove themselves or go, each against the recipe as it is shipped.

    python benchmarks/options.py DATA WORK_DIR [--arms NAME ...] [--minutes 10 | --steps 2000] [--list]

`modern-tiny` with one option changed in both of its phases, the same English Wikipedia text, the same wall-clock time or the
same steps; scored on held-out text and by SST-2 (equal_budget.py). One JSON per finished arm in benchmarks/results/options.
Equal time wants an otherwise idle machine.
"""

from __future__ import annotations

from equal_budget import parser, run_arms

PHASES = {"mlm": "2e-3", "rtd": "1e-3"}
ARMS = {
    "default": [],
    "muon": [f"phases.{phase}.optimizer={{type='muon', lr={lr}, betas=[0.9, 0.98], weight_decay=0.01}}"
             for phase, lr in PHASES.items()],
    "ema": [f"phases.{phase}.average=0.999" for phase in PHASES],
    "wsd": [f"phases.{phase}.optimizer.decay_ratio=0.2" for phase in PHASES],
    "batch-ramp": ["batch.first_rows=4"],
    "mask-rate-decay": [f"phases.{phase}.objective.masking.{rate}"
                        for phase in PHASES for rate in ("rate=0.3", "final_rate=0.15")],
}  # fmt: skip


def main() -> None:
    run_arms(parser(__doc__).parse_args(), ARMS, (), "options")


if __name__ == "__main__":
    main()
