"""The HTTP face: registration, calls, health."""
