"""Jet tagging in PyTorch: from ROOT ntuples to calibrated, uncertainty-aware taggers."""

__version__ = "0.1.0"
