"""What `import jettagger` offers, and what it does not import."""

import subprocess
import sys

import pytest

import jettagger

HEAVY = ("torch", "numpy", "uproot", "awkward", "matplotlib", "sklearn", "h5py", "safetensors")


def test_public_names_are_pinned():
    assert jettagger.__all__ == ["JettaggerError", "Tagger", "__version__", "load"]
    assert dir(jettagger) == sorted(jettagger.__all__)
    for name in jettagger.__all__:
        assert getattr(jettagger, name) is not None


def test_names_are_those_of_their_rooms():
    from jettagger import errors, tagger

    assert jettagger.load is tagger.load
    assert jettagger.Tagger is tagger.Tagger
    assert jettagger.JettaggerError is errors.JettaggerError
    assert jettagger.__version__.count(".") == 2


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="module 'jettagger' has no attribute 'laod'"):
        _ = jettagger.laod


@pytest.mark.parametrize(
    "code",
    [
        "import jettagger; dir(jettagger); jettagger.__version__",
        "from jettagger.cli import main; sys.argv = ['jettagger', '--help']; main()",
        "from jettagger.cli import main; sys.argv = ['jettagger', 'train', '--help']; main()",
    ],
)
def test_importing_and_asking_for_help_is_light(code):
    """Whatever is imported later takes its time when it is needed."""
    text = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit as ended:\n    assert not ended.code\n"
        f"print('imported:', *(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].strip() == "imported:"
