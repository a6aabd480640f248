"""What is in the files of a config, looked at before any training: yields, faults, spectra, comparisons."""
