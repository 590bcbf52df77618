"""What we say to another assistant server."""
