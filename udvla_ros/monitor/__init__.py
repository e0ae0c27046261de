"""Does what was foreseen come? Scores of each chunk, thresholds by split conformal, and when to hand over."""
