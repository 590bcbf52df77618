"""What the benchmarks and the tests both need: the server as a process, a Redis, certificates, ports, waiting."""
