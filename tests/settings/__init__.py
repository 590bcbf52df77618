"""Tests of rapida_twisted/settings."""
