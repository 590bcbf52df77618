"""A client of Asterisk's REST interface (ARI): requests, events, errors."""
