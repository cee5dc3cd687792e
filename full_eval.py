"""Evaluates scenes x methods x initial poses x seeds, each run in its own process, into one table and one page.

    python full_eval.py -s data/demo -o output/eval
    python full_eval.py -s scenes/* --methods tfp tfi ours paper --poses accurate noisy --seeds 0 1 2
    python full_eval.py -s data/demo --methods tables --poses accurate sfm perturbed-1

The last line measures the rows of the paper's two comparison tables: images, and scenes with held-out views.

A run that already has a ``results.json`` is skipped, so an interrupted evaluation continues where it stopped
(``--finished`` shows what there is).  A failed run is marked as failed in the table.  Output in ``-o``: ``table.md``,
``table.csv``, ``table.tex`` (means over seeds, with their spread), ``report.html`` and ``pages/``, images that
correspond to figures of the paper.  Every number in the table was measured by this program on these scenes.  Only rows
with the same scene, poses and seeds can be compared.
"""

from __future__ import annotations

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from arguments.command_line import CommandLine
from arguments.parser import add_quiet_argument, seed
from arguments.parts import ImageOptions
from commands.guard import guarded
from evaluation.cluster import perform
from evaluation.comparisons import write_tables
from evaluation.jobs import Job, do, jobs_of
from evaluation.methods import BASELINES, GROUPS, METHODS, POSES
from evaluation.pages import write_pages
from utils.telling import announce, bar, be_quiet, say


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*GROUPS, *BASELINES, *METHODS]
    made.add_argument("-s", "--scenes", nargs="+", type=Path, required=True, help="scene folders")
    made.add_argument(
        "-o", "--out", type=Path, default=Path("output/eval"), help="output folder (default: output/eval)"
    )
    made.add_argument(
        "--methods", nargs="+", choices=known, default=["main"], metavar="METHOD",
        help=f"methods, or groups of methods ({', '.join(GROUPS)}): {', '.join(known[len(GROUPS):])} (default: main)",
    )  # fmt: skip
    made.add_argument(
        "--poses", nargs="+", choices=[*POSES], default=["accurate"], help="initial poses (default: accurate)"
    )
    made.add_argument("--seeds", nargs="+", type=seed, default=[0], help="random seeds to average over (default: 0)")
    made.add_argument(
        "--ray", nargs="?", const="", metavar="ADDRESS",
        help="perform runs in parallel with Ray: on this machine, or on the cluster with this address",
    )  # fmt: skip
    made.add_argument("--cpus", type=int, default=1, help="with --ray: processors of a run (default: 1)")
    made.add_argument("--gpus", type=float, default=0.0, help="with --ray: GPUs of a run (default: 0)")
    made.add_argument(
        "--retries", type=int, default=3, help="with --ray: retries of a run whose worker died (default: 3)"
    )
    made.add_argument(
        "--start_from", type=Path, metavar="MODEL",
        help="model that every training starts from, as in train.py (for blocks of a large scene)",
    )  # fmt: skip
    made.add_argument(
        "--spk2imgnet_weights", type=Path, metavar="FILE", help="published weights for the methods with Spk2ImgNet"
    )
    made.add_argument("--finished", action="store_true", help="start no run, only write the tables of finished runs")
    add_quiet_argument(made)
    return made


def one_by_one(jobs: Sequence[Job], out: Path, options: ImageOptions) -> Iterator[tuple[Job, str]]:
    """Perform jobs in order; yields each when it ends, with the reason why it failed (empty if it did not)."""
    for job in jobs:
        failure = ""
        try:
            do(job, out, options)
        except (RuntimeError, ValueError) as error:
            failure = str(error)
        yield job, failure


def main() -> int:
    args = parser().parse_args()
    be_quiet(args.quiet)
    methods = list(dict.fromkeys(m for name in args.methods for m in GROUPS.get(name, [name])))
    # The commands run in this program's folder.
    out = args.out.resolve()
    start = "" if args.start_from is None else str(args.start_from.resolve())
    jobs, notes = jobs_of([scene.resolve() for scene in args.scenes], methods, args.poses, args.seeds, start)
    for note in notes:
        say(note)
    weights = "" if args.spk2imgnet_weights is None else str(args.spk2imgnet_weights.resolve())
    options = ImageOptions(spk2imgnet_weights=weights)
    if args.finished:
        jobs = [job for job in jobs if job.is_done(out)]
    failed: dict[Job, str] = {}
    missing = [job for job in jobs if not job.is_done(out)]
    if args.ray is None:
        ended = one_by_one(missing, out, options)
    else:
        ended = perform(missing, out, options, args.ray, args.cpus, args.gpus, args.retries)
    shown = bar("Evaluating", len(jobs), len(jobs) - len(missing))
    for job, failure in ended:
        shown.update()
        shown.set_postfix_str(str(job))
        if failure:
            failed[job] = failure
            announce(f"{job.scene.name} {job.method}: {failure}", to=sys.stderr)
    shown.close()
    say(write_tables(jobs, out, failed))
    pages = [str(path.relative_to(out)) for path in write_pages(jobs, out)]
    say(f"Written to {out}: {', '.join(['table.md', 'table.csv', 'table.tex', 'report.html', *pages])}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(guarded(main))
