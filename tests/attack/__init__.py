"""Attacks on the real program beside calls."""
