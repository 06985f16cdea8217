"""The one error a user sees, and the exit codes of the command line.

An `ElectraError` names a code, the place, the cause and the mend. The letter of the code decides the exit code, so that a
scheduler can tell bad usage from bad data from a machine that is too small.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns; 75 is sysexits' EX_TEMPFAIL, which schedulers retry."""

    DONE = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    RESOURCES = 4
    PREEMPTED = 75


_EXIT_CODE_OF_LETTER = {
    "C": ExitCode.USAGE,  # recipes, options, paths given on the command line
    "D": ExitCode.DATA,  # texts, corpora, labelled files
    "M": ExitCode.DATA,  # model directories, checkpoints
    "T": ExitCode.DATA,  # training that cannot go on: non-finite loss, diverged
    "R": ExitCode.RESOURCES,  # memory, disk, missing extras
}


class ElectraError(Exception):
    """A failure that the user can mend.

    Args:
        code: `E-<letter><three digits>`; the letter gives the exit code (C usage; D, M, T data; R resources).
        where: file and line, recipe path, or verb.
        cause: what is wrong there, with the offending value.
        fix: what to do about it.
    """

    def __init__(self, code: str, where: str, cause: str, fix: str) -> None:
        super().__init__(f"{code} {where}: {cause}; {fix}")
        self.code = code
        self.where = where
        self.cause = cause
        self.fix = fix

    def __reduce__(self) -> tuple[type[ElectraError], tuple[str, str, str, str]]:
        """From process to process as what it was made of: a pool waits forever for one that cannot be made again."""
        return type(self), (self.code, self.where, self.cause, self.fix)

    @property
    def exit_code(self) -> ExitCode:
        return _EXIT_CODE_OF_LETTER[self.code[2]]


class RelayedError(ElectraError):
    """What another process of the run has raised, and says; it ends this one with the same code."""


class Preempted(Exception):
    """The run was asked to stop, saved the start of its unfinished step and can be resumed (exit code 75)."""
