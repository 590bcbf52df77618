"""The protocols: on fake transports and fake time, and on real loopback sockets."""
