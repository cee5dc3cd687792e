"""The command line of every command: flags with dashes or underscores, and errors of one sentence."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn


def underscored(argv: Iterable[str]) -> list[str]:
    """A command line with its flags as the parsers know them: ``--sh-degree`` is ``--sh_degree``."""
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        start = "--no-" if name.startswith("--no-") else "--"
        is_flag = name.startswith("--") and name != "--help-all"
        words.append(start + name.removeprefix(start).replace("-", "_") + equals + value if is_flag else word)
    return words


class CommandLine(argparse.ArgumentParser):
    """A parser that takes flags with dashes or underscores, and reports an error as one sentence, without the usage.

    Args:
        args: arguments of ``argparse.ArgumentParser``; flags cannot be abbreviated.
        remark: what else to say about an unknown flag.
        kwargs: as ``args``.
    """

    def __init__(self, *args: Any, remark: Callable[[str], str] = lambda flag: "", **kwargs: Any):
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self._remark = remark

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As in ``argparse``, for flags with dashes or underscores."""
        return super().parse_known_args(underscored(sys.argv[1:] if args is None else args), namespace)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As in ``argparse``; an error names the flags that an unknown one resembles."""
        words = sys.argv[1:] if args is None else args
        given, unknown = self.parse_known_args(words, namespace)
        if unknown:
            self._asked(words)._refuse(unknown[0])
        return given

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and a sentence on stderr."""
        self.exit(2, f"error: {message}\n")

    def _asked(self, words: Sequence[str]) -> CommandLine:
        """The parser of the subcommand that is asked for, or this one."""
        commands = {
            name: parser
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name, parser in action.choices.items()
        }
        return next((commands[word] for word in words if word in commands), self)

    def _refuse(self, word: str) -> NoReturn:
        flag = word.partition("=")[0]
        if not flag.startswith("-"):
            self.error(f"{self.prog} does not expect {word!r}; -h shows what it expects")
        alike = difflib.get_close_matches(flag, self._option_string_actions, n=1, cutoff=0.75)
        remark = self._remark(flag) or (f"did you mean {alike[0]}?" if alike else "-h shows its flags")
        self.error(f"{self.prog} has no flag {flag}; {remark}")
