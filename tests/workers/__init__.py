"""Several processes for one machine's calls."""
