"""What keys and buttons do besides moving the arm: one table of services, and what changes in the operator's hands."""

from __future__ import annotations

# name -> (Trigger service, relative to the namespace; what it is for people)
SERVICES: dict[str, tuple[str, str]] = {
    "engage_policy": ("arbiter_node/engage_policy", "give the arm to the policy"),
    "engage_teleop": ("arbiter_node/engage_teleop", "take the arm without moving it"),
    "hold": ("arbiter_node/hold", "bring the arm to rest, take no commands"),
    "stop": ("arbiter_node/stop", "the same, latched until reset"),
    "reset": ("arbiter_node/reset", "leave STOPPED"),
    "episode_start": ("recorder_node/start", "start recording an episode"),
    "episode_success": ("recorder_node/stop_success", "end it: it succeeded"),
    "episode_failure": ("recorder_node/stop_failure", "end it: it failed"),
    "episode_discard": ("recorder_node/discard", "end it and throw it away"),
    "snapshot": ("recorder_node/snapshot", "keep the last seconds"),
}

# These end a touch at once: the hands must let go and touch again before the arm moves.
ENDS_TOUCH = frozenset({"engage_policy", "hold", "stop", "reset"})

# name -> what it is for people; done by the operator's side itself.
LOCAL: dict[str, str] = {
    "gripper": "open or close the gripper",
    "faster": "raise the speed scale",
    "slower": "lower the speed scale",
    "frame": "jog along the base's or the TCP's axes",
    "help": "show the keys",
}

ACTIONS = {**{name: text for name, (_, text) in SERVICES.items()}, **LOCAL}
