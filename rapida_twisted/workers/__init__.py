"""Several processes for one machine's calls: a parent that has the ports, and workers that accept from them."""
