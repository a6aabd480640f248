"""`jettagger predict`: a row for each jet of some files, in order, the last one included.

Where jets are nested in events, ROOT and parquet files have a row for each event, so that they can be read beside
the input as a friend tree; events without jets keep theirs.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jettagger import tagger
from jettagger.data.locations import find_files
from jettagger.data.reader import opening_of, source_of
from jettagger.errors import JettaggerError
from jettagger.evaluation.output import check_suffix, scores_written
from jettagger.evaluation.score_files import Block
from jettagger.files import check_writable
from jettagger.tagger import Scored


def score_files(
    bundle: Path,
    files: Sequence[str],
    output: Path,
    *,
    mc_dropout: int = 0,
    device: str = "cpu",
    mean_over_folds: bool = False,
) -> int:
    """Scores all jets of `files` with a bundle, writes them to `output`, and returns how many they are.

    Columns: those of `Tagger.score`, with `file` (number of the file, from 0) and `entry` (in that file). They
    are written chunk by chunk: memory does not grow with the number of jets. `mean_over_folds`: see
    `Tagger.mean_over_folds`.
    """
    check_suffix(output)
    check_writable(output)
    scorer = tagger.load(bundle, device=device)
    scorer = scorer.mean_over_folds() if mean_over_folds else scorer
    paths = find_files(list(files), where="predict")
    if output.resolve() in {Path(path).resolve() for path in paths}:
        raise JettaggerError(f"--output {output} is one of the files to be scored")
    opening = opening_of(scorer.config)
    attributes = {"files": ", ".join(paths), "tagger": scorer.card.get("name", "")}
    with scores_written(output, attributes) as writer:
        for number, path in enumerate(paths):
            before = writer.rows
            for scored in scorer.predict_file(path, mc_dropout=mc_dropout):
                writer.add(_block(scored, number))
            expected = source_of(path, opening).entries
            if writer.rows - before != expected:
                raise JettaggerError(
                    f"{output}: {expected} entries of {path} were to be scored, {writer.rows - before} were"
                )
    return writer.jets


def _block(scored: Scored, file: int) -> Block:
    position = {
        "file": np.full(scored.entries, file),
        "entry": np.arange(scored.first, scored.first + scored.entries),
    }
    if scored.counts_E is None:
        return Block(position | scored.columns)
    return Block(position, scored.columns, scored.counts_E)
