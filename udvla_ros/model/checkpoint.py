"""The checkpoint bundle: every part a policy needs, in one folder, checked to belong together.

::

    config.json        backbone, layout, attention, action space, rates, decoder, sha256 of every part
    model.safetensors  the decoder, or several files with an index
    vision/            Emu3VQVAE (config.json, model.safetensors)
    text/tokenizer.json
    action/            FAST (tokenizer.json, processor_config.json) and norm_stats.json
    README.md          model card

Nothing in it is executed: safetensors and JSON only, no pickle, no remote code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from udvla_ros.errors import BundleError, ObservationError
from udvla_ros.model import weights
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.runtime import DTYPES, RuntimeOptions
from udvla_ros.tokens.action import FastTokenizer
from udvla_ros.tokens.layout import Layout, View
from udvla_ros.tokens.normalize import QuantileNormalizer
from udvla_ros.tokens.text import TextTokenizer
from udvla_ros.tokens.vision import VisionTokenizer

FORMAT = 1
SENTENCES = "text/sentences.txt"
WEIGHTS = weights.WEIGHTS
PARTS = (
    WEIGHTS, "vision/config.json", "vision/model.safetensors", "text/tokenizer.json",
    "action/tokenizer.json", "action/processor_config.json", "action/norm_stats.json",
)  # fmt: skip
SPACES = ("tcp_delta", "joint_absolute", "joint_delta")
FRAMES = ("base", "tcp")
ROTATIONS = ("rotvec", "euler_xyz")
RESIZES = ("area", "bicubic")


@dataclass(frozen=True)
class ActionConvention:
    """What the action numbers mean.

    Attributes:
        space: ``tcp_delta`` (dx, dy, dz in m, rotation vector in rad, gripper -1 open .. +1 close),
            ``joint_absolute`` or ``joint_delta``.
        frame: ``base`` or ``tcp``: in which frame a TCP delta is expressed.
        chunk, dimensions: steps per chunk and values per step.
        control_hz: rate at which the steps are due.
        gripper: index of the gripper's dimension; ``None`` where there is none.
        gripper_threshold: of the data's gripper values, which are binarised there: 1 above, ``2 threshold - 1`` below
            (-1 and 1 around 0, 0 and 1 around a half).
        gripper_opens: whether values above the threshold open the gripper (CALVIN, Bridge), not close it (LIBERO).
        scale: physical units (m, rad, gripper: 1) of a 1 in the data, per dimension; empty: the data is physical.
        rotation: how a ``tcp_delta`` writes its rotation: ``rotvec`` or ``euler_xyz`` (about fixed axes, x first).
        joints: names of the joints it was trained on, in order; empty where the data did not tell.
    """

    space: str = "tcp_delta"
    frame: str = "base"
    chunk: int = 8
    dimensions: int = 7
    control_hz: float = 10.0
    gripper: int | None = 6
    gripper_threshold: float = 0.0
    gripper_opens: bool = False
    scale: tuple[float, ...] = ()
    rotation: str = "rotvec"
    joints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "joints", tuple(self.joints))
        if self.space not in SPACES or self.frame not in FRAMES:
            raise BundleError(
                f"action space '{self.space}' in frame '{self.frame}' is unknown; known: "
                f"{', '.join(SPACES)} in {' or '.join(FRAMES)}"
            )
        if self.chunk < 1 or self.dimensions < 1 or not 0 < self.control_hz < float("inf"):
            raise BundleError(
                f"action has chunk {self.chunk}, dimensions {self.dimensions}, control_hz {self.control_hz}; "
                "all three must be above zero"
            )
        if self.gripper is not None and not 0 <= self.gripper < self.dimensions:
            raise BundleError(f"action's gripper is dimension {self.gripper} of {self.dimensions}; count from 0")
        object.__setattr__(self, "scale", tuple(float(value) for value in self.scale))  # JSON has lists
        if self.scale and (len(self.scale) != self.dimensions or not all(0 < s < float("inf") for s in self.scale)):
            raise BundleError(f"action's scale is {list(self.scale)}; give {self.dimensions} numbers above zero")
        if self.rotation not in ROTATIONS:
            raise BundleError(f"action's rotation is '{self.rotation}'; known: {', '.join(ROTATIONS)}")


@dataclass(frozen=True)
class ImageConvention:
    """How camera images become what the weights were trained on.

    Attributes:
        resize: ``area``: averaged when shrunk, so that small objects keep colour; ``bicubic``: PIL's, as published.
        turned: the data's images are the camera's turned by 180 degrees (LIBERO's renderer draws upside down).
        squash: an image of another aspect ratio is squeezed into the view's, not refused.
        crops: per camera the part [x, y, width, height] that is looked at, in shares of the turned image's sides.
    """

    resize: str = "area"
    turned: bool = False
    squash: bool = False
    crops: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise BundleError(f"images' resize is '{self.resize}'; known: {', '.join(RESIZES)}")
        for camera, part in self.crops.items():
            if len(part) != 4 or not all(0 <= part[i] < part[i] + part[i + 2] <= 1 + 1e-9 for i in (0, 1)):
                raise BundleError(f"images' crop of {camera} is {list(part)}; give [x, y, width, height] within 0 to 1")


@dataclass(frozen=True)
class BundleConfig:
    """The contents of ``config.json``.

    ``tasks`` names the kinds of task the bundle was trained for, where its data says; it commits nobody.
    """

    name: str
    backbone: Mapping[str, Any]
    layout: Layout
    attention: str = "hybrid"
    action: ActionConvention = field(default_factory=ActionConvention)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    images: ImageConvention = field(default_factory=ImageConvention)

    @property
    def views(self) -> tuple[View, ...]:
        """The cameras' rasters, in the sequence's order."""
        return self.layout.views

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras' names, in the sequence's order."""
        return tuple(view.name for view in self.layout.views)

    @property
    def action_space(self) -> str:
        """Name of the action space."""
        return self.action.space

    @property
    def action_frame(self) -> str:
        """Frame of TCP deltas: ``base`` or ``tcp``."""
        return self.action.frame

    @property
    def joints(self) -> tuple[str, ...]:
        """The joints that actions of a joint space name, in order; empty where the bundle does not say."""
        return self.action.joints if self.action.space != "tcp_delta" else ()

    @property
    def dimensions(self) -> int:
        """Values of one action."""
        return self.action.dimensions

    @property
    def gripper(self) -> int | None:
        """Which of them is the gripper's."""
        return self.action.gripper

    @property
    def control_hz(self) -> float:
        """Rate at which action steps are due."""
        return self.action.control_hz

    @property
    def chunk(self) -> int:
        """Steps per chunk."""
        return self.action.chunk

    def to_json(self) -> str:
        """Serialise."""
        values = {
            "format": FORMAT,
            "name": self.name,
            "backbone": dict(self.backbone),
            "attention": self.attention,
            "layout": self.layout.to_dict(),
            "action": asdict(self.action),
            "decoding": dict(self.decoding),
            "parts": dict(self.parts),
            **({"tasks": list(self.tasks)} if self.tasks else {}),
            **({"images": asdict(self.images)} if self.images != ImageConvention() else {}),
        }
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> BundleConfig:
        """Inverse of :meth:`to_json`. Raises BundleError naming what is wrong in ``where``."""
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise BundleError(f"{where} has format {values['format']}; this version reads {FORMAT}")
            config = cls(
                values["name"], dict(values["backbone"]), Layout.from_dict(values["layout"]), values["attention"],
                ActionConvention(**values["action"]), dict(values["decoding"]), dict(values["parts"]),
                tuple(values.get("tasks", ())), ImageConvention(**values.get("images", {})),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{where} is no bundle configuration: {one_line(error)}") from error
        sharded = {WEIGHTS: weights.INDEX} if weights.INDEX in config.parts else {}
        unlisted = [name for name in PARTS if sharded.get(name, name) not in config.parts]
        if unlisted:
            raise BundleError(f"{where} lists no hash of {', '.join(unlisted)}; save the bundle again")
        return config


@dataclass
class Bundle:
    """A loaded bundle. ``hash`` identifies it in reports and rosbags.

    ``sentences`` are those it was trained on, where it tells: what can be said to it without guessing.
    """

    config: BundleConfig
    backbone: Backbone
    vision: VisionTokenizer
    text: TextTokenizer
    fast: FastTokenizer
    normalizer: QuantileNormalizer
    hash: str = ""
    sentences: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise BundleError where two parts do not speak of the same tokens."""
        v, action = self.config.layout.vocabulary, self.config.action
        claims = [
            ("the vision codebook", self.vision.codebook_size, "the layout's visual_size", v.visual_size),
            ("the FAST vocabulary", self.fast.vocab_size, "the layout's action_size", v.action_size),
            ("the FAST chunk", self.fast.chunk, "the action's chunk", action.chunk),
            ("the FAST dimensions", self.fast.dimensions, "the action's dimensions", action.dimensions),
            ("norm_stats", self.normalizer.dimensions, "the action's dimensions", action.dimensions),
        ]
        for left, a, right, b in claims:
            if a != b:
                raise BundleError(f"{left} has {a} and {right} is {b}; these parts are of different bundles")
        if self.text.vocab_size > v.text_size:
            raise BundleError(
                f"the text tokenizer has {self.text.vocab_size} ids and the layout {v.text_size}; "
                "these parts are of different bundles"
            )
        for view in self.config.views:
            try:
                grid = self.vision.grid(view.height, view.width)
            except ObservationError as error:
                raise BundleError(f"camera {view.name} of the layout: {error}") from error
            if grid != (view.rows, view.cols):
                raise BundleError(
                    f"camera {view.name} is {view.rows}x{view.cols} codes in the layout and {grid[0]}x{grid[1]} "
                    "for the vision tokeniser"
                )

    def save(self, folder: str | Path, card: str | None = None) -> Path:
        """Write all parts to ``folder`` and the hashes that tie them together."""
        self.check()
        folder = Path(folder)
        for part in ("vision", "text", "action"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        weights.write(self.backbone.decoder, folder)
        self.vision.save(folder / "vision")
        self.text.save(folder / "text")
        self.fast.save(folder / "action")
        self.normalizer.save(folder / "action", self.config.name)
        if self.sentences:
            (folder / SENTENCES).write_text("\n".join(self.sentences) + "\n")
        if card is not None:
            (folder / "README.md").write_text(card)
        parts = {name: sha256(folder / name) for name in part_files(folder)}
        config = BundleConfig(**{**_shallow(self.config), "parts": parts})
        (folder / "config.json").write_text(config.to_json())
        self.config, self.hash = config, sha256(folder / "config.json")
        return folder

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        verify: bool = True,
        runtime: RuntimeOptions | None = None,
    ) -> Bundle:
        """Read a bundle. ``runtime`` says how its decoder is run; its ``threads`` are set for the whole process.

        Raises:
            BundleError: a part is missing, changed since it was saved, or does not fit the others; or the
                device is not there.
        """
        folder = Path(folder)
        device = checked_device(device)
        path = folder / "config.json"
        if not path.is_file():
            raise BundleError(f"{folder} holds no config.json; give the folder of a bundle")
        config = BundleConfig.from_json(path.read_bytes(), str(path))
        for name, expected in config.parts.items():
            if not (folder / name).is_file():
                raise BundleError(f"{folder} lacks {name}; copy the whole bundle again")
            if verify and sha256(folder / name) != expected:
                raise BundleError(f"{folder / name} is not the file this bundle was saved with; copy it again")
        runtime = (runtime or RuntimeOptions()).on(device)
        backbone = _built(config, path)
        rounded = None if runtime.weights == "float" else runtime.weights
        weights.read(backbone.decoder, folder, device, DTYPES[runtime.dtype], rounded)
        bundle = cls(
            config, backbone.to(device).run_as(runtime).eval(), VisionTokenizer.load(folder / "vision", device),
            TextTokenizer.load(folder / "text"),
            FastTokenizer.load(folder / "action", config.action.chunk, config.action.dimensions),
            QuantileNormalizer.load(folder / "action"), sha256(path), read_sentences(folder),
        )  # fmt: skip
        bundle.check()
        return bundle


def read_sentences(folder: Path) -> tuple[str, ...]:
    """Return the sentences a bundle was trained on; none where it does not tell."""
    path = folder / SENTENCES
    return tuple(path.read_text().splitlines()) if path.is_file() else ()


def checked_device(device: str | torch.device) -> torch.device:
    """Return the device. Raises BundleError in one line where it is not there."""
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise BundleError(f"'{device}' is no device; use cpu or cuda") from error
    if chosen.type not in ("cpu", "cuda"):
        raise BundleError(f"device {device} is not supported; use cpu or cuda")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise BundleError("device cuda was asked for and no CUDA GPU is visible; use device cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise BundleError(f"device {device} was asked for and {torch.cuda.device_count()} CUDA GPUs are visible")
    return chosen


def one_line(error: Exception) -> str:
    """Return an error's message without line breaks."""
    return " ".join(str(error).split())


def _built(config: BundleConfig, path: Path) -> Backbone:
    """Build the backbone, without memory for its weights."""
    try:
        return Backbone(config.backbone, config.layout, config.attention, empty=True)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def part_files(folder: Path) -> list[str]:
    """Return the files that the bundle's hashes cover, relative to it."""
    files = [p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors") and p.name != "fit.json"]
    return sorted(str(p.relative_to(folder)) for p in files if p != folder / "config.json")


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _shallow(config: BundleConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
