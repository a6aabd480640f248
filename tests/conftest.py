"""What tests of several rooms share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toy_jets import write_toy_data


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy files, `config.yaml` and the prepared data that tests leave there; not to be changed."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy_data(folder)
    return folder
