"""`jettagger predict`: one row for each jet of some files, in order, the last one included."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jettagger import tagger
from jettagger.data.locations import find_files
from jettagger.data.reader import opening_of, source_of
from jettagger.errors import JettaggerError
from jettagger.evaluation.output import check_suffix, write_scores
from jettagger.files import check_writable


def score_files(
    bundle: Path, files: Sequence[str], output: Path, *, mc_dropout: int = 0, device: str = "cpu"
) -> int:
    """Scores all jets of `files` with a bundle, writes them to `output`, and returns how many they are.

    Columns: those of `Tagger.score`, with `file` (number of the file, from 0) and `entry` (in that file).
    """
    check_suffix(output)
    check_writable(output)
    scorer = tagger.load(bundle, device=device)
    paths = find_files(list(files), where="predict")
    if output.resolve() in {Path(path).resolve() for path in paths}:
        raise JettaggerError(f"--output {output} is one of the files to be scored")
    parts: list[dict[str, NDArray[Any]]] = []
    for number, path in enumerate(paths):
        for first, columns in scorer.predict_file(path, mc_dropout=mc_dropout):
            jets = len(columns["passes_selection"])
            position = {"file": np.full(jets, number), "entry": np.arange(first, first + jets)}
            parts.append(position | columns)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    opening = opening_of(scorer.config)
    expected = sum(source_of(path, opening).entries for path in paths)
    if len(joined["entry"]) != expected:
        raise JettaggerError(f"{output}: {expected} jets were to be scored, {len(joined['entry'])} were")
    write_scores(output, joined, {"files": ", ".join(paths), "tagger": scorer.card.get("name", "")})
    return expected
