from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from jettagger import configuration
from jettagger.batch import Part, Rows
from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import Dropout
from jettagger.report.rate_run import find_rate
from jettagger.training.accumulation import sizes_of
from jettagger.training.distribution import Ranks
from jettagger.training.launch import device_of, found_ranks
from jettagger.training.loop import train_member
from jettagger.training.schema import TrainingSection
from jettagger.training.sharing import kept_together
from jettagger.training.spread import measure_spread
from memory import make_jets, make_model, make_training

T = TypeVar("T")

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID")


class Others(Ranks):
    """Rank 0 of two that are not connected; the other one always says the same."""

    other: object = None

    def gathered_by_all(self, value: T) -> list[T]:
        return [value, self.other]  # type: ignore[list-item]

    def from_first(self, value: T) -> T:
        return value


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_a_launcher_a_process_trains_alone(environment: pytest.MonkeyPatch) -> None:
    assert found_ranks() == Ranks()
    environment.setenv("SLURM_PROCID", "0")
    assert found_ranks() == Ranks()


def test_a_launcher_names_the_ranks(environment: pytest.MonkeyPatch) -> None:
    for name, value in zip(LAUNCHED, ("5", "8", "1", "here", "29500"), strict=False):
        environment.setenv(name, value)
    environment.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert found_ranks() == Ranks(rank=5, world=8, local=1, restarts=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"RANK": "one", "WORLD_SIZE": "2"}, "environment's RANK is 'one', and has to be a number from 0 on"),
        (
            {"RANK": "0", "WORLD_SIZE": "0"},
            "environment's WORLD_SIZE is '0', and has to be a number from 1 on",
        ),
        ({"WORLD_SIZE": "2"}, "environment's RANK is not set"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, but WORLD_SIZE 2: ranks are counted from 0"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
        (
            {"SLURM_PROCID": "3"},
            "task 3 of srun, but RANK and WORLD_SIZE are not set",
        ),
    ],
)
def test_half_an_environment_is_refused(
    environment: pytest.MonkeyPatch, given: dict[str, str], message: str
) -> None:
    for name, value in given.items():
        environment.setenv(name, value)
    with pytest.raises(JettaggerError, match=message):
        found_ranks()


def test_a_command_of_one_process_is_refused_to_several(
    environment: pytest.MonkeyPatch, toy_folder: Path, tmp_path: Path
) -> None:
    recipe = configuration.recipe(configuration.load(toy_folder / "config.yaml", ["ensemble.members=2"]))
    for name, value in zip(LAUNCHED, ("0", "2", "0", "here", "29500"), strict=False):
        environment.setenv(name, value)
    with pytest.raises(
        JettaggerError, match="find-lr runs in one process, and WORLD_SIZE is 2: start it without"
    ):
        find_rate(recipe, tmp_path, name="toy", say=lambda line: None)
    with pytest.raises(JettaggerError, match="jettagger spread runs in one process"):
        measure_spread(recipe, tmp_path, say=lambda line: None)


def test_each_rank_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    third = Ranks(rank=6, world=8, local=2)
    assert device_of(third, "cpu") == "cpu"
    assert device_of(Ranks(), "cuda:1") == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert device_of(third, "auto") == device_of(third, "cuda") == "cuda:2"
    with pytest.raises(JettaggerError, match=r"cuda:1 would be shared by 8 ranks; write auto or cuda"):
        device_of(third, "cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(JettaggerError, match=r"number 3 on its machine, which has 2 CUDA devices"):
        device_of(third, "auto")


def test_ranks_have_the_same_in_common() -> None:
    ranks = Others(world=2)
    object.__setattr__(ranks, "other", "float32")
    ranks.check_same("precision", "float32")
    with pytest.raises(JettaggerError, match="differ in precision: rank 0 has bfloat16, rank 1 float32"):
        ranks.check_same("precision", "bfloat16")


def test_networks_that_come_apart_are_brought_together() -> None:
    ranks, model = Others(world=2), make_model()
    object.__setattr__(ranks, "other", "another digest")
    remark = kept_together(ranks, model)
    assert remark is not None
    assert "the networks of ranks 1 differ from rank 0's in their last bits" in remark
    assert kept_together(Ranks(), model) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": 0.2}, "training.mixup mixes jets of the whole batch"),
    ],
)
def test_what_looks_at_pairs_of_jets_is_not_shared(
    tmp_path: Path, options: dict[str, float], message: str
) -> None:
    with pytest.raises(JettaggerError, match=message):
        train_member(make_training(tmp_path, ranks=Ranks(world=2), **options))


def test_a_mask_is_cut_out_of_the_one_for_all() -> None:
    layer = Dropout(0.5, (3,)).train()
    x = torch.ones(10, 3)
    layer.generator = torch.Generator().manual_seed(1)
    whole, after = layer(x), layer(x)
    layer.generator.manual_seed(1)
    layer.rows = Rows(4, 5, 10)
    assert torch.equal(layer(x[4:9]), whole[4:9])
    assert torch.equal(layer(x[4:9]), after[4:9])
    with pytest.raises(AssertionError, match="3 rows, but this rank's part of the batch has 5 jets"):
        layer(x[:3])


@pytest.mark.parametrize(("jets", "sizes"), [(5, [2, 3]), (1, [1, 0]), (0, [0, 0])])
def test_ranks_cut_their_shares_into_as_many_parts(jets: int, sizes: list[int]) -> None:
    batch = make_jets().batch(torch.arange(jets))
    assert sizes_of(replace(batch, part=Part(Rows(0, jets, 9), {})), 2, ranks=2) == sizes
    assert sizes_of(batch, 2, ranks=1) == [size for size in sizes if size]


def test_the_rate_follows_the_batch_as_asked() -> None:
    def peak(**scaling: object) -> float:
        given = {"batch_size": 1024, "optimiser": {"name": "adamw", "lr": 1.0e-3}, "lr_scaling": scaling}
        return TrainingSection.model_validate(given).peak_rate

    assert peak(name="none") == 1.0e-3
    assert peak(name="linear", reference=256) == pytest.approx(4.0e-3)
    assert peak(name="square_root", reference=256) == pytest.approx(2.0e-3)
    with pytest.raises(ValueError, match=r"linear needs the batch that optimiser\.lr was found for"):
        peak(name="linear")
    with pytest.raises(ValueError, match="reference is used by linear and square_root only, not by none"):
        peak(name="none", reference=256)


def test_a_scaled_rate_is_the_one_that_is_used(tmp_path: Path) -> None:
    options = {"schedule": "constant", "lr_scaling": {"name": "linear", "reference": 64}, "epochs": 1}
    result = train_member(make_training(tmp_path, **options))
    assert result.history[0].lr == pytest.approx(1.0e-3 * 256 / 64)
