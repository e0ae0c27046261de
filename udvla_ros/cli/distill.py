"""``udvla distill``: a student that decodes in a few steps what its teacher decodes in many."""

from __future__ import annotations

import argparse
from pathlib import Path

from udvla_ros.cli.data import positive


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``distill``."""
    parser = subparsers.add_parser(
        "distill",
        help="train a student that denoises in a few steps",
        description="Consistency distillation (CEED-VLA, for joint denoising). Writes --output: ways/ (what the "
        "teacher does, collected once), log.jsonl, predictions.png, checkpoint.pt and bundle/. Run it again with the "
        "same values to go on after a kill.",
    )
    parser.add_argument("--teacher", required=True, help="folder of a bundle")
    parser.add_argument("--data", type=Path, required=True, help="folder of the teacher's episodes")
    parser.add_argument("--tokens", type=Path, help="tokens/ of the teacher's run, where it is still there")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--frames", type=positive, default=16000, help="ways to collect (default: %(default)s)")
    parser.add_argument("--teacher-steps", type=positive, default=16, help="denoising steps of the ways (default: 16)")
    parser.add_argument("--student-steps", type=positive, default=4, help="steps of the student's bundle (default: 4)")
    parser.add_argument("--delta", type=float, default=0.15, help="mean distance from the demonstration, in normalised "
                        "units, above which it is the label (default: %(default)s)")  # fmt: skip
    parser.add_argument("--steps", type=positive, default=1000, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="time budget; the learning rate falls over it")
    parser.add_argument("--batch", type=positive, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--consistency", type=float, default=1.0, help="weight of the target (default: 1)")
    parser.add_argument("--labels", type=float, default=1.0, help="weight of the mixed labels (default: 1)")
    parser.add_argument("--omega", type=float, default=0.5, help="weight of the images (default: 0.5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive, help="CPU threads")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Collect, distil and write the student's bundle."""
    from udvla_ros.training.memory import keep_freed_memory

    keep_freed_memory()  # before torch allocates anything
    import torch

    from udvla_ros.model.checkpoint import Bundle
    from udvla_ros.resources import find
    from udvla_ros.training.distill import Distillation
    from udvla_ros.training.student import StudentRun

    if args.threads:
        torch.set_num_threads(args.threads)
    teacher = Bundle.load(find(args.teacher))
    config = Distillation(
        steps=args.steps, minutes=args.minutes, batch=args.batch, lr=args.lr, omega=args.omega, seed=args.seed,
        consistency=args.consistency, labels=args.labels, backbone=dict(teacher.config.backbone),
    )  # fmt: skip
    student = StudentRun(
        teacher, args.data, args.output, config, args.teacher_steps, args.student_steps, args.frames, args.delta,
        args.tokens,
    )  # fmt: skip
    print(f"wrote {student.run()}")
    return 0
