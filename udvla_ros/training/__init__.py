"""Training: the vision tokeniser, the FAST fit and the two stages of the policy."""
