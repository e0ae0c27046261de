"""How the machine behaves: what decoding, filter and recorder cost, and long runs."""
