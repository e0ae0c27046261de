"""Measurements of speed and cost: decoding, the safety filter, the recorder, long runs."""
