"""Measure a policy in closed loop, and show what it saw, foresaw and got."""
