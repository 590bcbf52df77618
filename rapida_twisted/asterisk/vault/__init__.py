"""The encrypted vault of ARI credentials."""
