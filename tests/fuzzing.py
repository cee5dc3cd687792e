"""Reads damaged files with every reader of the program, and counts what comes of it.

    python -m tests.fuzzing --files 100000 --out build/fuzzing       (about 15 minutes on one processor)
    python -m tests.fuzzing --files 300 --only "mesh .glb" --show    one reader, and every bad file

Small valid files are damaged: bits, bytes, lengths, numbers, the structure of JSON and of archives.  Each is read in a
process that may use 2 GB more than it starts with and 10 seconds.  Either it is read or it is refused in one sentence
with its name; anything else is bad and kept in ``--out``.  A run with the same ``--out`` continues where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from commands.guard import guarded
from tests.hostile_readers import BY_NAME, READERS, Reader

SECONDS, MEMORY = 10, 2 << 30
GOOD = ("read", "refused")
BAD = ("traceback", "unnamed", "unclear", "not finite", "crash", "hang", "memory", "code")
Random = np.random.Generator


# ---- damage ----------------------------------------------------------------------------------------------

_WORDS = (
    b"-1", b"0", b"1e999", b"nan", b"1e39", b"1e12", b"4294967296", b"9223372036854775807", b"-9223372036854775808",
    b"9" * 400, b"9" * 5000, b"null", b'"x"', b"", b"0.5", b"true", b"../../etc/passwd",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, "", "x", "\ud800", "../../../etc/passwd", "/dev/zero", "a\0b", -1, 0, 2**31, 2**63, 10**30, 10**400,
    0.5, -0.0, 1e39, 1e308, float("nan"), float("inf"), [], {}, [[]], {"a": {}}, [1, "a"], [None] * 3, ["0.5"] * 4,
)  # fmt: skip
_INTEGERS = (0, 1, -1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)


def _flip(data: bytearray, random: Random) -> bytearray:
    for _ in range(random.integers(1, 5)):
        if data:
            data[random.integers(len(data))] ^= 1 << int(random.integers(8))
    return data


def _insert(data: bytearray, random: Random) -> bytearray:
    at = int(random.integers(len(data) + 1))
    data[at:at] = random.integers(0, 256, int(random.integers(1, 20)), dtype=np.uint8).tobytes()
    return data


def _delete(data: bytearray, random: Random) -> bytearray:
    at = int(random.integers(len(data) + 1))
    del data[at : at + int(random.integers(1, 40))]
    return data


def _truncate(data: bytearray, random: Random) -> bytearray:
    return data[: int(random.integers(len(data) + 1))]


def _repeat(data: bytearray, random: Random) -> bytearray:
    a, b = sorted(int(x) for x in random.integers(0, len(data) + 1, 2))
    return data[:b] + data[a:]


def _binary_number(data: bytearray, random: Random) -> bytearray:
    """Overwrite one number, most often near the start, where counts are."""
    size = int(random.choice([1, 2, 4, 8]))
    near = 64 if random.random() < 0.5 else len(data)
    at = int(random.integers(max(min(near, len(data) - size), 1)))
    if random.random() < 0.25 and size >= 4:
        kind, value = ("<f" if size == 4 else "<d"), float(random.choice([np.nan, np.inf, 1e30, -1e30, 0.0]))
        data[at : at + size] = struct.pack(kind, value)
    else:
        value = int(random.choice(np.array(_INTEGERS, object))) % (1 << 8 * size)
        data[at : at + size] = value.to_bytes(size, str(random.choice(["little", "big"])))  # type: ignore[arg-type]
    return data


def _text_number(data: bytearray, random: Random) -> bytearray:
    """Replace a number in text, if there is any."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?", bytes(data[:20000])))
    if not found:
        return _flip(data, random)
    place = found[int(random.integers(len(found)))]
    data[place.start() : place.end()] = _WORDS[int(random.integers(len(_WORDS)))]
    return data


PLAIN: tuple[Callable[[bytearray, Random], bytearray], ...] = (
    _flip, _insert, _delete, _truncate, _repeat, _binary_number, _text_number,
)  # fmt: skip


def _json(data: bytes, random: Random) -> bytes:
    """Replace, remove or nest one value of a JSON text, or of one of its lines."""
    lines = data.splitlines()
    if len(lines) > 1 and lines[1][:1] == b"{" == lines[0][:1]:
        at = int(random.integers(len(lines)))
        return b"\n".join([*lines[:at], _json(lines[at], random), *lines[at + 1 :]])
    value = json.loads(data)
    places: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        node = pending.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            pending.append(node[key])
    if not places:
        return data
    # Half of the time near the root: deep numbers are many.
    few = places[: max(len(places) // 8, 1)] if random.random() < 0.5 else places
    node, key = few[int(random.integers(len(few)))]
    act = random.random()
    if act < 0.6:
        node[key] = copy.copy(_VALUES[int(random.integers(len(_VALUES)))])
    elif act < 0.7:
        del node[key]
    elif act < 0.8:
        node[key] = [node[key]]
    elif act < 0.85:
        if isinstance(node[key], (list, dict)):
            node[key] = node[key] * 50 if isinstance(node[key], list) else {"more": 1, **node[key]}
    elif act < 0.9:
        other, place = places[int(random.integers(len(places)))]
        node[key] = copy.deepcopy(other[place])
    else:
        deep = int(random.choice([70, 900, 30000]))
        mark = '"of the deep"'
        node[key] = "of the deep"
        return json.dumps(value).replace(mark, "[" * deep + "]" * deep).encode()
    mark = b"\xef\xbb\xbf" if random.random() < 0.05 else b""
    return mark + json.dumps(value, ensure_ascii=bool(random.random() < 0.9)).encode("utf-8", "surrogatepass")


def _archive(data: bytes, random: Random) -> bytes:
    """Damage one member of a zip file and write it again with the right checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = list(members)[int(random.integers(len(members)))]
    members[name] = damaged(members[name], random)
    out = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if random.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", kind) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return out.getvalue()


def _gzip(data: bytes, random: Random) -> bytes:
    inner = damaged(zlib.decompress(data, wbits=31), random)
    packer = zlib.compressobj(wbits=31)
    return packer.compress(inner) + packer.flush()


def _glb(data: bytes, random: Random) -> bytes:
    """Damage the JSON of a binary glTF, with the right lengths."""
    length = int.from_bytes(data[12:16], "little")
    inner = _json(data[20 : 20 + length], random)
    inner += b" " * (-len(inner) % 4)
    rest = data[20 + length :]
    return data[:8] + struct.pack("<II", 20 + len(inner) + len(rest), len(inner)) + data[16:20] + inner + rest


def _png(data: bytes, random: Random) -> bytes:
    """Damage one chunk of a PNG, with the right length and checksum."""
    chunks, at = list[tuple[bytes, bytes]](), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    which = int(random.integers(len(chunks)))
    kind, content = chunks[which]
    if kind == b"IDAT" and random.random() < 0.5:
        content = zlib.compress(damaged(zlib.decompress(content), random))
    else:
        content = damaged(content, random)
    chunks[which] = kind, content
    parts = (len(c).to_bytes(4, "big") + k + c + zlib.crc32(k + c).to_bytes(4, "big") for k, c in chunks)
    return data[:8] + b"".join(parts)


_STRUCTURED = {
    b"PK": _archive, b"\x89P": _png, b"\x1f\x8b": _gzip, b"gl": _glb, b"{\n": _json, b'{"': _json, b"[\n": _json,
}  # fmt: skip


def damaged(data: bytes, random: Random) -> bytes:
    """The content of a file, damaged."""
    act = _STRUCTURED.get(data[:2])
    if act is not None and random.random() < 0.6:
        return act(data, random)
    result = bytearray(data)
    for _ in range(1 if random.random() < 0.7 else int(random.integers(2, 5))):
        result = PLAIN[int(random.integers(len(PLAIN)))](result, random)
    return bytes(result)


# ---- one process that reads ------------------------------------------------------------------------------


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


_ran: list[str] = []
_STARTS = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pty.spawn"}


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Notice everything that only code in a file would do."""
    if event in _STARTS:
        _ran.append(event)
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        path = os.path.abspath(os.fsdecode(arguments[0])) if isinstance(arguments[0], (str, bytes)) else ""
        if path and not path.startswith((tempfile.gettempdir(), os.devnull)):
            _ran.append(f"{event} {path}")


def _finite(value: Any) -> bool:
    """Whether all numbers that a reader returned are finite."""
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all())
    if isinstance(value, np.ndarray):
        return bool(np.isfinite(value).all()) if value.dtype.kind == "f" else True
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_finite, value))
    return not isinstance(value, float) or value == value


def outcome(reader: Reader, folder: Path, file: Path) -> tuple[str, str]:
    """What comes of reading: one of ``GOOD`` or ``BAD``, and what was said."""
    _ran.clear()
    result: list[Any] = []
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = guarded(lambda: result.append(reader.read(folder)))
    except MemoryError:
        return "memory", "MemoryError"
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"[:300]
    text = said.getvalue().strip()
    if _ran or Path("ran").exists():
        return "code", ", ".join(_ran)
    if status == 0:
        return ("read", "") if _finite(result) else ("not finite", "")
    if "fit into memory" in text or "out of memory" in text:
        return "memory", text
    if "\n" in text or not text.startswith("error: ") or len(text) > 700:
        return "unclear", text[:700]
    return ("refused" if str(folder) in text else "unnamed"), text


def _work(reader: Reader, seeds: Path, seed: int, first: int, last: int, answers: Connection) -> None:
    """Read the damaged files ``first`` to ``last`` - 1, and answer for each."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries write to the terminal
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="fuzzing-"))
    shutil.copytree(seeds, folder, dirs_exist_ok=True)
    os.chdir(tempfile.mkdtemp(prefix="fuzzing-", dir=folder.parent))
    files = sorted(json.loads((seeds / ".files").read_text()))
    whole = {name: (folder / name).read_bytes() for name in files}
    sys.addaudithook(_watch)
    _limit_memory()
    for number in range(first, last):
        random = np.random.default_rng([seed, zlib.crc32(reader.name.encode()), number])
        name = files[int(random.integers(len(files)))]
        content = damaged(whole[name], random)
        (folder / name).write_bytes(content)
        answers.send((number, name, content, None))
        found = outcome(reader, folder, folder / name)
        answers.send((number, name, b"", found))
        (folder / name).write_bytes(whole[name])
    answers.send(None)
    shutil.rmtree(folder, ignore_errors=True)


# ---- the table -------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """The outcomes of one reader, and the files that came out badly: (number, name, outcome, what was said)."""

    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[int, str, str, str]] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)
    slowest: float = 0.0


def fuzz(reader: Reader, tally: Tally, seed: int, until: int) -> None:
    """Continue a tally until ``until`` files are done."""
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as name:
        seeds = Path(name)
        files = [str(path.relative_to(seeds)) for path in reader.make(seeds)]
        (seeds / ".files").write_text(json.dumps(files))
        while tally.done < until:
            _one_process(reader, seeds, tally, seed, until)


def _processor_seconds(process: int | None) -> float:
    """Time that a process has used on a processor; 0 if it has ended."""
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _one_process(reader: Reader, seeds: Path, tally: Tally, seed: int, until: int) -> None:
    """Read in one process until it ends or must be ended."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_work, args=(reader, seeds, seed, tally.done, until, theirs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # threads of libraries that wait do not matter to the child
        process.start()
    theirs.close()
    pending: tuple[int, str, bytes] | None = None
    begun, used = time.monotonic(), 0.0
    while True:
        found = None
        try:
            if not ours.poll(1):
                # On a busy machine a process may wait for its turn.
                if _processor_seconds(process.pid) < used + SECONDS and time.monotonic() < begun + 10 * SECONDS:
                    continue
                found = "hang", f"more than {SECONDS} seconds"
            else:
                answer = ours.recv()
                if answer is None:
                    break
                number, name, content, found = answer
                if found is None:
                    pending, begun = (number, name, content), time.monotonic()
                    used = _processor_seconds(process.pid)
                    continue
        except EOFError:
            process.join()
            code = process.exitcode or 0
            found = "crash", signal.Signals(-code).name if code < 0 else f"exit status {code}"
        if pending is None:
            raise RuntimeError(f"{reader.name}: the process ended before the first file: {found}")
        number, name, content = pending
        kind, said = found
        tally.done = number + 1
        tally.counts[kind] += 1
        tally.slowest = max(tally.slowest, time.monotonic() - begun)
        if kind not in GOOD:
            tally.bad.append((number, name, kind, said))
            tally.contents[number] = content
        if kind in ("hang", "crash"):
            break
        pending = None
    if process.is_alive():
        process.kill()
    process.join()
    ours.close()


def table(tallies: dict[str, Tally]) -> str:
    """The outcomes as Markdown."""
    head = ["reader", "files", *GOOD, *BAD, "slowest, s"]
    rows = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    total = Tally()
    for tally in tallies.values():
        total.done += tally.done
        total.counts += tally.counts
        total.slowest = max(total.slowest, tally.slowest)
    for name, tally in [*tallies.items(), ("**all**", total)]:
        numbers = [str(tally.done), *(str(tally.counts[kind]) for kind in (*GOOD, *BAD)), f"{tally.slowest:.2f}"]
        rows.append("| " + " | ".join([name, *numbers]) + " |")
    return "\n".join(rows)


def _saved(path: Path) -> Tally:
    if not path.exists():
        return Tally()
    stored = json.loads(path.read_text())
    bad = [tuple(row) for row in stored["bad"]]
    return Tally(stored["done"], Counter(stored["counts"]), bad, {}, stored["slowest"])


def _save(path: Path, tally: Tally) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, name, _, _ in tally.bad:
        if number in tally.contents:
            (path.with_suffix("") / str(number)).mkdir(parents=True, exist_ok=True)
            (path.with_suffix("") / str(number) / Path(name).name).write_bytes(tally.contents[number])
    stored = {"done": tally.done, "counts": tally.counts, "bad": tally.bad, "slowest": tally.slowest}
    path.write_text(json.dumps(stored, indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="damaged files over all readers (default: 1000)")
    parser.add_argument("--only", nargs="+", default=list(BY_NAME), choices=list(BY_NAME), metavar="READER")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage (default: 0)")
    parser.add_argument("--out", type=Path, help="folder for progress and bad files")
    parser.add_argument("--show", action="store_true", help="print every bad outcome")
    args = parser.parse_args()
    torch.set_num_threads(1)
    each = -(-args.files // len(args.only))
    tallies: dict[str, Tally] = {}
    for reader in READERS:
        if reader.name not in args.only:
            continue
        path = None if args.out is None else args.out / f"{re.sub(r'[^a-z0-9]+', '-', reader.name.lower())}.json"
        tally = tallies[reader.name] = Tally() if path is None else _saved(path)
        while tally.done < each:
            fuzz(reader, tally, args.seed, min(tally.done + 500, each))
            if path is not None:
                _save(path, tally)
        print(f"{reader.name}: {dict(tally.counts)}", flush=True)
        for row in tally.bad if args.show else []:
            print("   ", *row, flush=True)
    print(table(tallies))
    return 1 if any(tally.bad for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
