"""What the cameras show: one encoding, one size, alive, and a picture to act on."""

from __future__ import annotations

from udvla_ros.doctor.report import Finding, fail, ok, warn
from udvla_ros.doctor.snapshot import Camera, Snapshot
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.policy.contract import guards_of
from udvla_ros.policy.observe import Guards, why_blind


def check(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    """Judge each camera that is published; one that is not has been told of with the topics."""
    guards = guards_of(robot)
    found = []
    for name, entry in robot.cameras.items():
        camera = seen.cameras.get(name, Camera())
        if seen.topic(entry.get("topic", "")).publishers:
            found += _camera(f"picture {name}", camera, entry, guards, seen.seconds)
    return found


def _camera(check: str, camera: Camera, entry: dict, guards: Guards, seconds: float) -> list[Finding]:
    if not camera.arrivals:
        return [
            fail(
                check,
                f"no image came within {seconds:g} s of looking",
                "large images need the shared-memory profile (see transport); is the camera running?",
            )
        ]
    if camera.problem:
        return [fail(check, camera.problem, "publish one of rgb8, bgr8, rgba8, bgra8, mono8")]
    if len(camera.sizes) > 1:
        return [fail(check, f"sizes change: {sorted(camera.sizes)}", "fix the camera's size; is it published twice?")]
    assert camera.image is not None
    kind, text = why_blind(camera.image, guards)
    if kind:
        return [fail(check, text.partition(";")[0], text.partition("; ")[2] or "look at its picture")]
    if guards.frozen_after > 0 and camera.unchanged > guards.frozen_after:
        return [fail(check, f"the very same picture for {camera.unchanged:.1f} s", "restart the camera")]
    (width, height), encoding = next(iter(camera.sizes)), ", ".join(sorted(camera.encodings))
    said = f"{width}x{height} {encoding}, mean {camera.image.mean():.0f} of 255"
    found: list[Finding] = []
    wanted = entry.get("encoding")
    if wanted and camera.encodings != {wanted} and "compressed" not in str(entry.get("topic")):
        found.append(
            warn(check, f"{said}; the robot file says {wanted}", "it is converted; mend the file or the camera")
        )
    return found or [ok(check, said)]
