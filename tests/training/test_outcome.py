"""What a member's folder says of its training."""

from pathlib import Path

import pytest

from jettagger.errors import JettaggerError
from jettagger.training import outcome
from jettagger.training.outcome import MemberFailure
from jettagger.training.recipe import member_folder


def test_folders_of_members_and_folds():
    run = Path("runs/x")
    assert member_folder(run, 2) == run / "member_2"
    assert member_folder(run, 2, fold=0) == run / "fold_0" / "member_2"


def test_a_failure_is_read_as_it_was_written(tmp_path):
    folder = tmp_path / "member_1"
    assert outcome.read_failure(folder) is None
    failure = MemberFailure(1, 0, "the loss is NaN", 12)
    outcome.write_failure(folder, failure)
    assert outcome.read_failure(folder) == failure
    assert str(failure) == "fold 0, member 1 failed after step 12: the loss is NaN"
    assert str(MemberFailure(1, None, "no memory")) == "member 1 failed: no memory"
    (folder / outcome.RESULT).write_text("{}")
    assert outcome.has_ended(folder)
    assert outcome.read_failure(folder) is None


def test_a_damaged_failure_is_an_error(tmp_path):
    (tmp_path / outcome.FAILED).write_text('{"member": 1}')
    with pytest.raises(JettaggerError, match=r"failed\.json cannot be read: .*missing"):
        outcome.read_failure(tmp_path)
