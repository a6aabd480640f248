"""From prepared data to a run directory with a tagger in it."""
