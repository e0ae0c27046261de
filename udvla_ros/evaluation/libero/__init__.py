"""Success in LIBERO: published init states, LIBERO's own success check, our loop."""
