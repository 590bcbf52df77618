"""Tests of rapida_twisted/upstream."""
