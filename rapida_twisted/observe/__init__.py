"""What an operator sees of it: figures for Prometheus, and logs without secrets in them."""
