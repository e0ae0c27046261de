"""UD-VLA under ROS 2: a sentence and two cameras in, safe arm motion out."""

__version__ = "0.1.0"
