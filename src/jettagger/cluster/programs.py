"""The schedulers' own programs."""

import shutil
import subprocess
from collections.abc import Sequence

from jettagger.errors import JettaggerError

PATIENCE = 60
"""Seconds after which a scheduler that does not answer is given up."""


def call(command: Sequence[str], purpose: str) -> str:
    """What a program prints. Raises JettaggerError when it is not there, fails or does not answer."""
    if shutil.which(command[0]) is None:
        raise JettaggerError(
            f"{command[0]} is not on this machine: use one that submits jobs, or look with --dry-run"
        )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise JettaggerError(f"{purpose} has not answered for {PATIENCE} s") from error
    if done.returncode:
        raise JettaggerError(f"{purpose} refuses: {(done.stderr or done.stdout).strip()}")
    return done.stdout
