"""A bundle behind a websocket: for benchmarks (vla-eval) and for an arm whose computer has no GPU."""
