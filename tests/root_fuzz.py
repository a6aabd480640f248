"""Reads a ROOT file again and again, each time with other bytes of it damaged, in little memory.

`python root_fuzz.py FILE RUNS`: prints how often it was read or refused; whatever else happens ends it.
"""

import resource
import signal
import sys
from pathlib import Path

import numpy as np

from jettagger.errors import JettaggerError
from root_files import everything

MEMORY = 2 * 2**30
"""Address space beyond what importing everything takes."""
SECONDS = 20
"""That one reading may take."""


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes overwritten: anywhere, in the file's header, or in the lists at its end."""
    low, high = [(0, len(content)), (0, 400), (max(len(content) - 9000, 0), len(content))][rng.integers(3)]
    at = int(rng.integers(low, min(high, len(content))))
    length = int(rng.choice([1, 4, 300]))
    value = [b"\xff", b"\x00", bytes(rng.integers(256, size=1, dtype=np.uint8))][rng.integers(3)]
    changed = bytearray(content)
    changed[at : at + length] = value * len(changed[at : at + length])
    return bytes(changed)


def main(path: Path, runs: int) -> None:
    """Ends with a traceback at the first reading that neither gives data nor names the file."""
    content = path.read_bytes()
    everything(path)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    broken = path.with_name("damaged.root")
    rng, counts = np.random.default_rng(3), {"read": 0, "refused": 0}
    for _ in range(runs):
        broken.write_bytes(damaged(content, rng))
        signal.alarm(SECONDS)
        try:
            everything(broken)
            counts["read"] += 1
        except JettaggerError as error:
            if "damaged.root" not in str(error):
                raise
            counts["refused"] += 1
        signal.alarm(0)
    print(counts["read"], counts["refused"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
