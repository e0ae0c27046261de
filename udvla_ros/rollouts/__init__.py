"""Demonstrations: episodes on disk, their readers, and their generation in simulation."""
