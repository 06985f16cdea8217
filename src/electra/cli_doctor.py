"""The verb that looks at the machine: `doctor`. Everything heavy is imported inside the verb."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from electra.errors import ElectraError


def doctor(
    run_dir: Annotated[Path, typer.Argument(help="Where a run is or will be; need not exist.")] = Path(),
    seconds: Annotated[float, typer.Option(help="Of a training on made-up text; 0 = none.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at packages, processor, memory, disk and ports, train for ten seconds, and say what to do.

    The exit code is 0 if nothing failed; a warning is no failure.
    """
    from electra.build.doctor import examine

    checks = []
    for check in examine(run_dir, seconds):
        checks.append(check)
        if not as_json:
            typer.echo(f"{check.state:4}  {check.name:18}  {check.found}")
            if check.mend:
                typer.echo(f"{'':26}-> {check.mend}")
    failed = [check.name for check in checks if check.state == "fail"]
    warned = sum(check.state == "warn" for check in checks)
    if as_json:
        shown = [dataclasses.asdict(check) for check in checks]
        typer.echo(json.dumps({"well": not failed, "run_dir": str(run_dir.absolute()), "checks": shown}, indent=1))
    elif not failed:
        typer.echo(f"all is well{f', with {warned} warning' + 's' * (warned > 1) if warned else ''}")
    if failed:
        raise ElectraError("E-R850", "doctor", f"failed: {', '.join(failed)}", "do what is said there, and ask again")
