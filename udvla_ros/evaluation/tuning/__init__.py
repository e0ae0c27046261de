"""The search for decoding options that fit a latency or a success floor."""
