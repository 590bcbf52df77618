"""Tests of rapida_twisted/gateway."""
