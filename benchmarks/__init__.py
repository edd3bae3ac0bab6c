"""The harness that measures the gateway beside nginx and its peers; start with `python -m benchmarks quick`."""
