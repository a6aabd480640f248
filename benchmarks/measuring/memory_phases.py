"""What `memory.py` watches: preparing, an epoch of batches, opening again; started by it in a fresh process.

Told as JSON: `phases` (prepare and epoch, or open), `config` (data sections), `processes`, `pool_bytes` and
`batch_size`.
"""

import json
import sys
from concurrent.futures import Executor
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from jettagger.data.batches import Batches
from jettagger.data.prepared import Prepared, prepare
from jettagger.data.schema import DataConfig
from measuring.processes import started
from measuring.stopwatch import measured


def main() -> None:
    told = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    config = DataConfig.model_validate(told["config"])
    filling, *following = told["phases"]
    with ExitStack() as stack:
        executor: Executor | None = None
        if told["processes"] is not None and filling == "prepare":
            executor = stack.enter_context(started(told["processes"]))
        with measured(filling) as figures:
            prepared = prepare(config, config.data.train, role="data.train", executor=executor)
            figures["jets"] = len(prepared)
    if following == ["epoch"]:
        with measured("epoch") as figures:
            figures["jets"] = epoch(prepared, told)


def epoch(prepared: Prepared, told: dict[str, Any]) -> int:
    """Every jet once, in shuffled batches that are made and let go."""
    pools = {} if told["pool_bytes"] is None else {"pool_bytes": told["pool_bytes"]}
    rows_R = np.arange(len(prepared))
    seen = sum(
        len(batch)
        for batch in Batches(prepared, rows_R, told["batch_size"], shuffle=(1, 0), **pools).epoch(0)
    )
    if seen != len(prepared):
        raise SystemExit(f"{seen} jets came out of {len(prepared)}")
    return seen


if __name__ == "__main__":
    main()
