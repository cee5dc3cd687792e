"""Evaluates scenes x methods x initial poses x seeds, each run in its own process, into one table and one page.

    python full_eval.py -s data/demo -o output/eval
    python full_eval.py -s scenes/* --methods tfp tfi ours paper --poses accurate noisy --seeds 0 1 2
    python full_eval.py -s data/demo --methods tables --poses accurate sfm perturbed-1

The last line fills the two tables of the paper's comparison: images, and scenes with held-out views.

A run that already has a ``results.json`` is skipped, so an interrupted evaluation continues where it stopped.  A
failed run is marked as failed in the table.  Output in ``-o``: ``table.md``, ``table.csv``, ``table.tex`` (means
over seeds, with their spread) and ``report.html``.  Every number in the table was measured by this program on these
scenes.  Only rows with the same scene, poses and seeds can be compared.
"""

from __future__ import annotations

import utils  # isort: skip  # noqa: F401  (before torch: see there)

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from arguments.parts import ImageOptions
from commands.guard import guarded
from evaluation.comparisons import write_tables
from evaluation.jobs import Job, do, jobs_of
from evaluation.methods import BASELINES, GROUPS, METHODS, POSES


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    made.add_argument("--seeds", nargs="+", type=int, default=[0], help="random seeds to average over (default: 0)")
    made.add_argument(
        "--spk2imgnet_weights", type=Path, metavar="FILE", help="published weights for the methods with Spk2ImgNet"
    )
    return made


def main() -> int:
    args = parser().parse_args()
    methods = list(dict.fromkeys(m for name in args.methods for m in GROUPS.get(name, [name])))
    # The commands run in this program's folder.
    out = args.out.resolve()
    jobs, notes = jobs_of([scene.resolve() for scene in args.scenes], methods, args.poses, args.seeds)
    for note in notes:
        print(note)
    weights = "" if args.spk2imgnet_weights is None else str(args.spk2imgnet_weights.resolve())
    options = ImageOptions(spk2imgnet_weights=weights)
    failed: dict[Job, str] = {}
    bar = tqdm(jobs, desc="Evaluating", dynamic_ncols=True)
    for job in bar:
        if job.is_done(out):
            continue
        bar.set_postfix_str(str(job))
        try:
            do(job, out, options)
        except (RuntimeError, ValueError) as error:
            failed[job] = str(error)
            tqdm.write(f"{job.scene.name} {job.method}: {error}")
    print(write_tables(jobs, out, failed))
    print(f"Written: {out}/table.md, table.csv, table.tex, report.html")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(guarded(main))
