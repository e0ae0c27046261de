"""Tables of results: specification, runs, claims, text and plots."""
