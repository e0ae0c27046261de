"""Hands on the arm: from keys, sticks and leader arms to short motions. No rclpy, no torch."""
