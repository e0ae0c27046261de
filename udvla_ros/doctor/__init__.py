"""What `udvla doctor` knows: what was seen of a running graph, and what is wrong with it. No ROS, no torch.

``snapshot`` holds what a look at the graph brings home, the files beside it judge that against the robot file, and
``report`` puts the findings in order. The looking itself is :mod:`udvla_ros.nodes.doctor`.
"""
