"""The operator's page: a small web server, one page, and what goes between them. No ROS in here."""
