"""The flags of data/make_demo.py."""

from __future__ import annotations

from pathlib import Path

from arguments.command_line import CommandLine
from arguments.parser import add_quiet_argument, seed
from simulation.demo import PLACES, SPACINGS, Recipe, make
from simulation.sensor import SENSORS
from utils.telling import be_quiet, say


def main() -> int:
    parser = CommandLine(description="Make the demo scene.")
    parser.add_argument("--out", type=Path, default=Path("data/demo"), help="folder to write (default: data/demo)")
    parser.add_argument("--views", type=int, default=16, help="views of the recording (default: 16)")
    parser.add_argument("--size", default="200x124", help="width x height in pixels (default: 200x124)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of the path and the sensor (default: 0)")
    parser.add_argument("--sensor", choices=SENSORS, default="default", help="simulated sensor (default: default)")
    parser.add_argument(
        "--spacing", type=int, choices=SPACINGS, default=1,
        help="spike frames from one rendered image to the next; light between them is interpolated, which is faster "
        "and for slow cameras hardly different (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--place", choices=PLACES, default=PLACES[0], help="a still life in a room, or a corridor (default: room)"
    )
    add_quiet_argument(parser)
    args = parser.parse_args()
    be_quiet(args.quiet)
    try:
        width, height = (int(x) for x in args.size.split("x"))
    except ValueError:
        raise ValueError(f"--size {args.size}: expected width x height, for example 200x124") from None
    if args.views < 2 or width < 16 or height < 16 or width * height % 8:
        raise ValueError(
            "--views must be at least 2, and --size at least 16x16 with a multiple of 8 pixels in all, "
            f"not {args.views} and {args.size}"
        )
    recipe = Recipe(
        args.views, width, height, args.seed, sensor=args.sensor, spacing=args.spacing, place=args.place
    )
    if recipe.state(args.out) == "done":
        say(f"{args.out} already exists")
        return 0
    make(args.out, recipe)
    say(f"The scene is in {args.out}")
    return 0
