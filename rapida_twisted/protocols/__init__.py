"""Sockets <-> ``wire/`` <-> a call: the Twisted and Autobahn protocols."""
