"""Decoders: from a prefix to future images and an action chunk, each behind one interface."""
