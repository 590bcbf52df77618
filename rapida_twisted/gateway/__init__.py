"""Calls carried on to another server: where what we say to it over HTTP, its media and our calls meet."""
