"""Tests of rapida_twisted/contexts."""
