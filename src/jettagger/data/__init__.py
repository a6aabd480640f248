"""Files to prepared datasets to batches."""
