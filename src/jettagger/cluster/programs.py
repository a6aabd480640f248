"""The schedulers' own programs."""

import shutil
import subprocess
from collections.abc import Sequence

from jettagger.errors import JettaggerError

PATIENCE = 60
"""Seconds after which a scheduler that does not answer is given up."""


class RefusedError(JettaggerError):
    """A scheduler has not done what it was asked for."""


class UnclearError(JettaggerError):
    """A scheduler may have done what it was asked for, or has done a part of it."""


def call(command: Sequence[str], purpose: str) -> str:
    """What a program prints.

    Raises RefusedError when it is not there or fails, and UnclearError when it does not answer.
    """
    if shutil.which(command[0]) is None:
        raise RefusedError(
            f"{command[0]} is not on this machine: use one that submits jobs, or look with --dry-run"
        )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnclearError(f"{purpose} has not answered for {PATIENCE} s") from error
    if done.returncode:
        raise RefusedError(f"{purpose} refuses: {(done.stderr or done.stdout).strip()}")
    return done.stdout
