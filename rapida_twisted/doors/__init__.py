"""Who is let in: limits of connections, networks, and what is told of those who are refused."""
