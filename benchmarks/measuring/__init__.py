"""How benchmarks measure: fresh processes, their memory, the page cache, the same inputs for everyone."""
