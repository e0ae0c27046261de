"""The arm's side: what may move the robot, and how. numpy and Pinocchio only; no torch, no ROS."""
