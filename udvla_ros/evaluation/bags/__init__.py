"""What a recording tells: the policy replayed on it, and a report."""
