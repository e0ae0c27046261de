"""ROS 2 nodes: thin shells around the core. With ``bringup`` the only place that imports rclpy."""
