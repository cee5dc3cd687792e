"""Command lines: flags with dashes or underscores, and errors of one sentence."""

import sys

import pytest

import commands.convert
import commands.spike
from arguments.command_line import CommandLine, underscored


def made() -> CommandLine:
    """A command line with subcommands."""
    parser = CommandLine(prog="kite")
    parser.add_argument("--long_tail", type=int, default=0)
    parts = parser.add_subparsers(dest="command")
    parts.add_parser("fly").add_argument("--high_up", action="store_true")
    parts.add_parser("land").add_argument("--soft_touch", action="store_true")
    return parser


def test_hyphens_are_underscores():
    written = ["--sh-degree", "2", "--no-pose-opt", "--video-out=a-b/c-d.mp4", "-s", "a-b", "--help-all", "x--y"]
    known = ["--sh_degree", "2", "--no-pose_opt", "--video_out=a-b/c-d.mp4", "-s", "a-b", "--help-all", "x--y"]
    assert underscored(written) == underscored(known) == known


def test_every_command_takes_dashes():
    assert made().parse_args(["--long-tail=3", "fly", "--high-up"]).high_up
    args = commands.spike.parser().parse_args("simulate a.glb --out b.dat --truth-every 4".split())
    assert args.truth_every == 4
    args = commands.convert.parser().parse_args("-s a --recording b.dat --max-blur 2.5 --preview-scale 2".split())
    assert args.max_blur == 2.5 and args.preview_scale == 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--long_tall=3", "kite has no flag --long_tall; did you mean --long_tail?"),
        ("--long-tall=3", "kite has no flag --long_tall; did you mean --long_tail?"),
        ("--zzz", "kite has no flag --zzz; -h shows its flags"),
        ("fly --high_app", "kite fly has no flag --high_app; did you mean --high_up?"),
        ("land --high_up", "kite land has no flag --high_up; -h shows its flags"),
        ("fly there", "kite fly does not expect 'there'; -h shows what it expects"),
        ("--long=3", "kite has no flag --long; "),  # no abbreviations: a new flag would make them ambiguous
        ("--long_tail three", "argument --long_tail: invalid int value: 'three'"),
        ("fall", "argument command: invalid choice: 'fall'"),
    ],
)
def test_an_error_is_one_sentence(argv, said, capsys):
    with pytest.raises(SystemExit) as ended:
        made().parse_args(argv.split())
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith(f"error: {said}") and err.count("\n") == 1


def test_what_is_said_about_an_unknown_flag_comes_first(capsys, monkeypatch):
    parser = CommandLine(prog="kite", remark=lambda flag: f"{flag} is for boats")
    parser.add_argument("--long_tail")
    monkeypatch.setattr(sys, "argv", ["kite", "--long-tale"])
    with pytest.raises(SystemExit):
        parser.parse_args()
    assert capsys.readouterr().err == "error: kite has no flag --long_tale; --long_tale is for boats\n"
