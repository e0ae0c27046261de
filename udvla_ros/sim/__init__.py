"""MuJoCo worlds, tasks and scripted experts; numpy only, no torch and no ROS."""
