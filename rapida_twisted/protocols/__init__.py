"""Twisted and Autobahn protocols that connect sockets with calls."""
