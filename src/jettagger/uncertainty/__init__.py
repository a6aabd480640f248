"""Deep ensembles, MC dropout, and what their spread means."""
