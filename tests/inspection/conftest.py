"""An inspection of small files, and files to spoil."""

import numpy as np
import pytest

from jettagger import configuration
from jettagger.inspection.inspect import inspect
from toy_jets import CONFIG, toy_jets, write_jets


@pytest.fixture
def toy(tmp_path):
    """`toy(QCD_train=branches…)` writes the files, `toy.inspect(overrides, …)` inspects them."""
    return Toy(tmp_path)


class Toy:
    """Four files that can be changed before they are written."""

    def __init__(self, folder, jets=400):
        self.folder = folder
        self.config = folder / "config.yaml"
        self.config.write_text(CONFIG.format(folder=folder), encoding="utf-8")
        self.branches = {
            f"{name}_{part}": toy_jets(name, jets, number + 1)
            for number, part in enumerate(("train", "test"))
            for name in ("QCD", "Top")
        }
        for n, branches in enumerate(self.branches.values()):
            branches["event_number"] = np.arange(jets, dtype=np.int64) // 2 + 10_000 * n

    def path(self, name):
        return self.folder / f"{name}.root"

    def write(self):
        for name, branches in self.branches.items():
            write_jets(self.path(name), branches)

    def without_test(self):
        """The config then names the training samples alone."""
        lines = self.config.read_text(encoding="utf-8").splitlines(keepends=True)
        self.config.write_text("".join(x for x in lines if not x.startswith("  test:")), encoding="utf-8")
        return self

    def inspect(self, *overrides, write=True, **options):
        if write:
            self.write()
        recipe = configuration.recipe(configuration.load(self.config, overrides))
        return inspect(recipe.data, recipe.baselines, name="toy", say=lambda line: None, **options)
