"""Batch systems: one plan of jobs, written for Slurm or HTCondor; their states; and sweeps over config values."""
