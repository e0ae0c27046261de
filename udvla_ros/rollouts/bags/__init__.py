"""Recorded episodes as rosbag2 folders (MCAP): written, read, checked, repaired; no ROS needed."""
