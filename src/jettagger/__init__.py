"""Jet tagging in PyTorch: from ROOT ntuples to calibrated, uncertainty-aware taggers.

import jettagger
tagger = jettagger.load("runs/particle_cnn/tagger")
scores = tagger.predict(jets)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jettagger.errors import JettaggerError
    from jettagger.tagger import Tagger, load

__version__ = "0.1.0"
__all__ = ["JettaggerError", "Tagger", "__version__", "load"]

_HOMES = {"JettaggerError": "errors", "Tagger": "tagger", "load": "tagger"}


def __getattr__(name: str) -> Any:
    """Imports torch and its like when they are first asked for."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"jettagger.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jettagger' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
