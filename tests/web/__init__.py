"""Tests of rapida_twisted/web."""
