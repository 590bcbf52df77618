"""Listening ports."""
