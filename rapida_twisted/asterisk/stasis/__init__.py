"""Calls in the Stasis application, without a dialplan."""
