"""The policy's training loop: stage (i) on future images, then stage (ii) JD3P on images and actions.

One loop serves a laptop and several processes (Hugging Face Accelerate). It is resumable at any kill:
every batch and corruption follows from ``(seed, step)``, and a checkpoint holds the rest. With a budget in
steps alone, a resumed run is the uninterrupted one to the last bit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from tqdm import tqdm

from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone
from udvla_ros.training.claim import claimed
from udvla_ros.training.corruption import Corrupted, corrupt, uncorrupted
from udvla_ros.training.dataset import Sequences
from udvla_ros.training.lora import adapt
from udvla_ros.training.objective import JD3PObjective, Losses
from udvla_ros.training.optimizer import Average, build_optimizers, learning_rate, trained
from udvla_ros.training.released import ReleasedObjective
from udvla_ros.training.sharding import divided_like, shard, whole

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FORESIGHTS = ("future", "current", "none")


@dataclass
class PolicyTraining:
    """Everything that decides a run besides its data; stored in the checkpoint and the model card."""

    # "released": one weighted mean over exactly round(n * ratio) hidden tokens; "next_token": the autoregressive
    # baseline, under causal attention
    objective: str = "jd3p"
    foresight: str = "future"  # or "current": the image as it is; or "none": the action alone (ablations)
    steps: int = 4000
    minutes: float | None = None  # a time budget beside `steps`: whichever ends first sets the schedule
    stage1_steps: int = 400  # action-free video first (paper, section 3.3)
    batch: int = 64  # prefixes per step, all processes together
    accumulate: int = 1  # pieces in which a process takes its share: less memory, the same gradient
    loss_chunk: int = 8192  # hidden tokens whose logits exist at one time
    copies: int = 1  # corrupted suffixes behind each prefix
    blind_copies: int = 2  # and action blocks that see no future image, which train `foresight: off`
    omega: float = 0.5
    corrections: float = 1.0  # how much more often what a hand corrected is drawn than the rest
    null_prompt: float = 0.15  # share of the samples that are told nothing (released recipe)
    joint_timestep: bool = False  # one ratio for image and action (paper) or two (public code)
    optimizer: str = "muon"
    lr: float = 2e-3
    lr_floor: float = 5e-5
    warmup: int = 50
    weight_decay: float = 0.1
    clip: float = 1.0
    ema: float = 0.999
    precision: str = "no"  # or "bf16": faster on GPUs, and on CPUs that have AMX
    compile: bool = False
    lora_rank: int = 0  # of adapters beside the frozen weights; 0: all weights are trained
    lora_alpha: int = 32  # adapters are scaled by alpha / rank
    lora_dropout: float = 0.0
    sharded: bool = False  # divide parameters over the processes (FSDP2), for models one device cannot hold
    gradient_checkpointing: bool = False  # recompute activations: less memory, a third more time
    seed: int = 0
    checkpoint_minutes: float = 3.0
    validate_every: int = 500
    backbone: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps <= self.stage1_steps:
            raise ConfigError(f"steps ({self.steps}) must exceed stage1_steps ({self.stage1_steps})")
        if self.accumulate < 1 or self.batch % self.accumulate:
            raise ConfigError(f"accumulate ({self.accumulate}) must divide batch ({self.batch})")
        if not 0 <= self.null_prompt < 1:
            raise ConfigError(f"null_prompt ({self.null_prompt}) must lie in [0, 1)")
        for name, known in {
            "optimizer": ("adamw", "muon"), "objective": ("jd3p", "released", "next_token"),
            "foresight": FORESIGHTS,
            "precision": ("no", "bf16", "fp16"),
        }.items():  # fmt: skip
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is '{getattr(self, name)}'; known: {', '.join(known)}")
        if self.objective == "released" and (self.blind_copies or self.foresight == "none"):
            raise ConfigError("objective 'released' learns images and action together: set blind_copies 0")
        if self.lora_rank < 0 or self.lora_alpha <= 0 or not 0 <= self.lora_dropout < 1:
            raise ConfigError("lora_rank must not be negative, lora_alpha above 0, lora_dropout in [0, 1)")
        if self.lora_rank and self.optimizer == "muon":
            raise ConfigError("lora_rank with optimizer muon: adapters are no square updates; set optimizer adamw")
        if self.foresight == "none" and (self.copies or not self.blind_copies or self.stage1_steps):
            raise ConfigError("foresight 'none' trains the action alone: set copies 0, stage1_steps 0, blind_copies 1+")


class PolicyTrainer:
    """Holds the state of one run."""

    def __init__(self, backbone: Backbone, data: Sequences, config: PolicyTraining, folder: Path) -> None:
        self.config, self.data, self.folder = config, data, folder
        self.accelerator = Accelerator(mixed_precision=config.precision)
        if config.objective == "next_token" and backbone.kind.name != "causal":
            raise ConfigError(
                f"objective 'next_token' under attention '{backbone.kind.name}' would let tokens see their own answer; "
                "use attention causal"
            )
        if config.lora_rank:
            torch.manual_seed(config.seed)  # the same adapters in every process
            adapt(backbone.decoder, config.lora_rank, config.lora_alpha, config.lora_dropout)
        self.objective: Any = self.make_objective(backbone)
        if config.gradient_checkpointing:
            backbone.decoder.checkpointing = True
        self.objective.to(self.accelerator.device)
        self.prepared: Any = self._prepare()
        self.optimizers = build_optimizers(backbone, config.optimizer, config.lr, config.weight_decay)
        self.average = Average(backbone, config.ema)
        self.backbone = backbone
        self.step = 0
        self.seconds = 0.0
        self._board: SummaryWriter | None = None
        if config.compile:
            backbone.hidden = torch.compile(backbone.hidden, dynamic=False)  # type: ignore[method-assign]
        folder.mkdir(parents=True, exist_ok=True)

    def _prepare(self) -> Any:
        """Wrap the objective for the processes there are; a sharded one holds other parameters afterwards."""
        if not self.config.sharded:
            return self.accelerator.prepare_model(self.objective)
        shard(self.objective, self.objective.backbone, self.config.precision == "bf16")
        return self.objective

    # -- one step ----------------------------------------------------------------------------------

    def make_objective(self, backbone: Backbone) -> nn.Module:
        """Return the loss to minimise, as one module to wrap."""
        kind = ReleasedObjective if self.config.objective == "released" else JD3PObjective
        return kind(backbone, self.config.omega, self.config.loss_chunk)

    def draw(self) -> np.ndarray:
        """Return what this step's batch is made of: steps of the data."""
        return self.data.draw(self.config.batch, self.config.seed, self.step, self.config.corrections)

    def batch(self, frames: np.ndarray, generator: torch.Generator, stage: int) -> dict[str, Any]:
        """Assemble this process's share of a batch, with the global counts of hidden tokens."""
        data, v = self.data, self.backbone.layout.vocabulary
        target = torch.as_tensor(data.suffix[frames].astype(np.int64))
        slots = self.objective.image_slots.cpu(), self.backbone.action_slots.cpu()
        count = {"copies": self.config.copies, "blind": self.config.blind_copies if stage == 2 else 0}
        if self.config.objective == "next_token":
            hidden = uncorrupted(target, *slots, v.mask, **count, draw_actions=stage == 2)
        else:
            hidden = corrupt(
                target, *slots, v.mask, **count, joint=self.config.joint_timestep, generator=generator,
                draw_actions=stage == 2, exact=self.config.objective == "released",
            )  # fmt: skip
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = slice(rank * len(frames) // world, (rank + 1) * len(frames) // world)
        device = self.accelerator.device
        silent = torch.rand(len(frames), generator=generator) < self.config.null_prompt
        prefix = data.prefixes(frames, silent.numpy())

        def mine(values: Any) -> Tensor:
            return torch.as_tensor(values)[share].to(device, torch.long)

        return {
            "prefix_ids": mine(prefix.ids),
            "prefix_positions": mine(prefix.positions),
            "prefix_modality": mine(prefix.modality),
            "target": mine(target),
            "corrupted": hidden[share].to(device),
            **self.objective.counts(target, hidden, world),
        }  # fmt: skip

    def pieces(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Cut a batch into ``accumulate`` parts; the counts stay those of the whole, so that their losses add up."""
        size, count = len(batch["prefix_ids"]), self.config.accumulate
        for index in range(count):
            rows = slice(index * size // count, (index + 1) * size // count)
            yield {
                name: value[rows] if isinstance(value, (Tensor, Corrupted)) else value for name, value in batch.items()
            }

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0 to 1."""
        timed = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(self.step / self.config.steps, timed))

    def train_step(self) -> Losses:
        """Draw, corrupt, step the optimisers and the average."""
        config = self.config
        generator = torch.Generator().manual_seed(corruption_seed(config.seed, self.step))
        stage = 1 if self.progress < config.stage1_steps / config.steps else 2  # its share, of whatever ends first
        batch = self.batch(self.draw(), generator, stage)
        lr = learning_rate(self.progress, self.step, config.lr, config.warmup, config.lr_floor)
        parts = []
        for index, piece in enumerate(self.pieces(batch), start=1):
            alone = index == config.accumulate or config.sharded
            with nullcontext() if alone else self.accelerator.no_sync(self.prepared):
                with self.accelerator.autocast():
                    losses: Losses = self.prepared(**piece)
                self.accelerator.backward(losses.total)
            parts.append(torch.stack([value.detach() for value in losses]))
        losses = Losses(*torch.stack(parts).sum(0))
        self.accelerator.clip_grad_norm_(self.objective.parameters(), config.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average.update(self.backbone, self.step)
        self.step += 1
        return losses

    # -- the run -----------------------------------------------------------------------------------

    def run(self, validate: Any = None) -> None:
        """Train to the end, logging to ``log.jsonl``; ``validate(trainer) -> dict`` runs on the average.

        Raises:
            ConfigError: another training is at work in the folder.
        """
        with claimed(self.folder) if self.accelerator.is_main_process else nullcontext():
            try:
                self._run(validate)
            except KeyboardInterrupt:
                self.save()  # an interrupted run loses nothing
                if self.accelerator.is_main_process:
                    print(f"saved step {self.step} in {self.checkpoint}", flush=True)
                raise

    def _run(self, validate: Any) -> None:
        config, main = self.config, self.accelerator.is_main_process
        saved = clock = time.monotonic()
        bar = tqdm(initial=self.step, total=config.steps, unit="step", disable=not main, mininterval=2.0)
        recent: list[Tensor] = []  # stays on the device: a number asked for at each step would make it wait
        while self.progress < 1.0:
            losses = self.train_step()
            now = time.monotonic()
            self.seconds += now - clock
            clock = now
            recent.append(torch.stack([losses.visual, losses.action]))
            bar.update()
            if self.step % 20 == 0:
                visual, action = self._mean_over_processes(torch.stack(recent).mean(0))
                recent.clear()
                learnt = f"{action:.3f}" if self.progress >= config.stage1_steps / config.steps else "not yet"
                bar.set_postfix(visual=f"{visual:.3f}", action=learnt, done=f"{self.progress:.0%}")
                self.log(step=self.step, seconds=round(self.seconds, 1), visual=visual, action=action)
            due = self.step % config.validate_every == 0 or self.progress >= 1.0
            if due and validate is not None and (main or config.sharded):
                with self.averaged():
                    self.log(step=self.step, **validate(self))
                clock = time.monotonic()
            if self._agreed(now - saved > 60 * config.checkpoint_minutes or self.progress >= 1.0):
                self.save()
                saved = clock = time.monotonic()
        bar.close()

    def _agreed(self, wish: bool) -> bool:
        """Return whether to save now: the first process's wish, as its clock goes; sharded, all have to take part."""
        if not self.config.sharded:
            return wish and self.accelerator.is_main_process
        return bool(broadcast_object_list([wish])[0])

    def _mean_over_processes(self, values: Tensor) -> tuple[float, float]:
        """Return the losses of the whole batch: each process knows those of its share."""
        visual, action = self.accelerator.reduce(values.float(), "mean").tolist()
        return visual, action

    def averaged(self, gathered: bool = True) -> _Swapped:
        """Use the averaged weights inside a ``with`` block; ``gathered``: to compute with, where they are divided."""
        return _Swapped(self, gathered and self.config.sharded)

    def log(self, **values: Any) -> None:
        """Append one line to ``log.jsonl``, and its numbers to ``tensorboard/`` where tensorboard is installed."""
        if not self.accelerator.is_main_process:
            return
        rounded = {k: round(float(v), 5) if isinstance(v, float) else v for k, v in values.items()}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(rounded) + "\n")
        if self._board is None and find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step)
        if self._board is not None:
            for name, value in rounded.items():
                if name != "step":
                    self._board.add_scalar(name, value, self.step)
            self._board.flush()

    # -- checkpoints -------------------------------------------------------------------------------

    def _divided(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """Divide an optimiser's moments as its parameters are."""
        if not self.config.sharded:
            return state
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        moments = {
            index: {
                name: divided_like(value, parameters[index].detach()) if value.dim() else value
                for name, value in entry.items()
            }
            for index, entry in state["state"].items()
        }
        return {**state, "state": moments}

    @property
    def checkpoint(self) -> Path:
        """Where the resumable state is kept."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the resumable state atomically."""
        state = {
            "model": whole({name: value.detach() for name, value in trained(self.backbone)}),
            "average": whole(self.average.values),
            "optimizers": whole([optimizer.state_dict() for optimizer in self.optimizers]),
            "step": self.step,
            "seconds": self.seconds,
            "config": asdict(self.config),
        }
        if not self.accelerator.is_main_process:
            return
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def resume(self) -> bool:
        """Load the state if there is one. Raises ConfigError if it belongs to another configuration."""
        if not self.checkpoint.is_file():
            return False
        state = torch.load(self.checkpoint, map_location=self.accelerator.device.type, weights_only=True)
        free = {"steps", "minutes", "checkpoint_minutes", "validate_every"}
        free |= {"compile", "sharded", "gradient_checkpointing"}  # how, not what
        ours = asdict(self.config)
        changed = [k for k, v in state["config"].items() if k not in free and ours.get(k) != v]
        if changed:
            raise ConfigError(
                f"{self.checkpoint} was made with other values of {', '.join(changed)}; "
                "use the same configuration or another --output"
            )
        try:
            own = self.backbone.state_dict()
            self.backbone.load_state_dict({**own, **divided_like(state["model"], own)})
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise ConfigError(
                f"{self.checkpoint} does not fit this data's vocabulary ({reason}); use another --output"
            ) from error
        self.average.values = divided_like(dict(state["average"]), self.average.values)
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(self._divided(optimizer, kept))
        self.step, self.seconds = state["step"], state["seconds"]
        return True


def corruption_seed(seed: int, step: int) -> int:
    """Return the seed of a step's corruption: the same on every machine and every version of Python."""
    return int(np.random.SeedSequence([seed, step, 1]).generate_state(1)[0])


class _Swapped:
    def __init__(self, trainer: PolicyTrainer, gather: bool) -> None:
        self.trainer, self.gather = trainer, gather

    def __enter__(self) -> Backbone:
        self.trainer.average.swap(self.trainer.backbone)
        if self.gather:
            self.trainer.objective.unshard()  # what lies outside the layers, which gather themselves
        return self.trainer.backbone.eval()

    def __exit__(self, *_: object) -> None:
        if self.gather:
            self.trainer.objective.reshard()
        self.trainer.average.swap(self.trainer.backbone)
        self.trainer.backbone.train()


def frames_in_batches(frames: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield ``frames`` in pieces of at most ``size``."""
    for start in range(0, len(frames), size):
        yield frames[start : start + size]
