"""What the README and the docs say is run."""
