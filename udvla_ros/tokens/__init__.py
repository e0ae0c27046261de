"""Text, images and actions as tokens of one discrete space."""
