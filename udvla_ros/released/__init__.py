"""The published weights and what belongs to them: read, checked, and turned into a bundle."""
