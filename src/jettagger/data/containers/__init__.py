"""One module a container: ROOT, HDF5, NumPy archives, parquet. What they give is described in `base`."""
