"""``udvla serve``: a bundle behind a websocket, for vla-eval's benchmarks and for an arm of another computer."""

from __future__ import annotations

import argparse
import sys


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``serve``."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a bundle to benchmarks (vla-eval) or to an arm's policy_node",
        description="Load a bundle and answer on a websocket: observations of vla-eval's benchmarks, and those of a "
        "policy_node that was started with server:=ws://host:port. GET /health says whether it is ready. Whoever "
        "reaches the port may use it, so it listens on this computer alone unless --host says otherwise.",
    )
    parser.add_argument("bundle", help="folder of a bundle, or a shipped one by its path")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="(default: %(default)s; 0: a free one)")
    parser.add_argument("--benchmark", choices=("libero", "calvin", "simpler"), help="whose observations are answered")
    parser.add_argument("--execute", type=int, metavar="N", help="actions of a chunk that a benchmark plays (all)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="observations decoded together at most")
    parser.add_argument("--seed", type=int, default=0, help="of a benchmark's first chunk")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:0")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of inference")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load, warm up, listen; say the address once it can be used."""
    import anyio
    from vla_eval.model_servers.serve import serve_async

    from udvla_ros.model.runtime import RuntimeOptions
    from udvla_ros.policy import Policy
    from udvla_ros.serving.server import BundleServer

    policy = Policy.load(args.bundle, args.device, runtime=RuntimeOptions(args.dtype, threads=args.threads))
    server = BundleServer(policy, args.benchmark, args.execute, args.batch, args.seed)
    policy.warm_up()
    if args.host not in ("127.0.0.1", "::1", "localhost"):
        print(f"udvla serve: whoever reaches {args.host}:{args.port} may use it", file=sys.stderr)

    async def listen() -> None:
        async with anyio.create_task_group() as tasks:
            port = await tasks.start(serve_async, server, args.host, args.port)
            print(f"udvla serve: '{policy.config.name}' on ws://{args.host}:{port}", flush=True)

    anyio.run(listen)
    return 0
