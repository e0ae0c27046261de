"""The layouts for Foxglove, Lichtblick and RViz name topics that the graph has, with the types their panels take."""

from __future__ import annotations

import json
import re

import yaml

from udvla_ros.console.news import predicted_topics, topics_of
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.resources import find

ROBOT = RobotDescription.load("ur5e_sim")
IMAGES = {f"/{camera['topic']}" for camera in ROBOT.cameras.values()}
IMAGES |= {f"/{topic}" for topic in predicted_topics(list(ROBOT.cameras)).values()}
OTHERS = {f"/{topic.lstrip('/')}": kind for topic, kind in topics_of(ROBOT).items()}


def test_foxglove_and_lichtblick_show_topics_that_are_there():
    layout = json.loads(find("config/viewers/foxglove.json").read_text())
    panels = layout["configById"]
    shown = {p["imageMode"]["imageTopic"] for p in panels.values() if "imageMode" in p}
    assert shown == IMAGES
    texts = [p["topicPath"] for p in panels.values() if "topicPath" in p]
    assert texts and all(OTHERS[path.removesuffix(".data")] == "std_msgs/msg/String" for path in texts)
    plotted = {path["value"].partition(".")[0] for p in panels.values() for path in p.get("paths", [])}
    assert {OTHERS[topic] for topic in plotted} == {"sensor_msgs/msg/JointState"} and len(plotted) == 2
    assert [p["topicToRender"] for p in panels.values() if "topicToRender" in p] == ["/diagnostics"]
    placed = re.findall(r'"(?:first|second)": "([^"]+)"', json.dumps(layout["layout"]))
    assert sorted(placed) == sorted(panels), "every panel has its place, once"


def test_rviz_shows_topics_that_are_there_in_the_frame_of_the_robot():
    told = yaml.safe_load(find("config/viewers/udvla.rviz").read_text())["Visualization Manager"]
    assert told["Global Options"]["Fixed Frame"] == ROBOT.base_frame
    shown = {d["Topic"]["Value"]: d["Topic"] for d in told["Displays"] if d["Class"].endswith("/Image")}
    assert set(shown) == IMAGES
    live = {f"/{camera['topic']}" for camera in ROBOT.cameras.values()}
    assert all(shown[topic]["Reliability Policy"] == "Best Effort" for topic in live), "as cameras publish"
