"""LIBERO's own scenes, init states and success checks behind our loop; needs ``make libero``."""
