"""Robot files: made from a URDF and a running graph, and looked over."""
