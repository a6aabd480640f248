"""The YAML of a run: read, checked as a whole, and turned into a frozen `Config`.

    config = load("configs/particle_cnn.yaml", ["training.epochs=3"])

Every mistake is reported at once, with file, line and the nearest valid name, before a data file is opened.
"""

from jettagger.configuration.config import Config
from jettagger.configuration.identity import differences, digest
from jettagger.configuration.json_schema import json_schema
from jettagger.configuration.loading import dump, load, loads
from jettagger.configuration.recipes import recipe, resolver, summary

__all__ = [
    "Config",
    "differences",
    "digest",
    "dump",
    "json_schema",
    "load",
    "loads",
    "recipe",
    "resolver",
    "summary",
]
