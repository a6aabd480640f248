"""What tests of several rooms share."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toy_jets import ENSEMBLE, write_toy_data


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    error: str


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy files, `config.yaml` and the prepared data that tests leave there; not to be changed."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy_data(folder)
    return folder


@pytest.fixture(scope="session")
def trained_run(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of two small networks with baselines; not to be changed."""
    from jettagger import configuration
    from jettagger.training import run

    output = tmp_path_factory.mktemp("runs") / "toy"
    loaded = configuration.load(toy_folder / "config.yaml", ENSEMBLE)
    run.train(configuration.recipe(loaded), output, say=lambda line: None)
    return output


@pytest.fixture
def run_copy(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of `trained_run` to change."""
    return Path(shutil.copytree(trained_run, tmp_path / "copy"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`command("train", config, …)` runs the command line in this process."""
    from jettagger import cli

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["jettagger", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, error = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), out, error)

    return run
