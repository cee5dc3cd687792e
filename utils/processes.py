"""Several processes with one task: torchrun starts them, and here they agree on everything they share.

    torchrun --standalone --nproc-per-node=4 train.py -s scene --shards 4
    torchrun --standalone --nproc-per-node=4 render.py -m output/scene

In render.py and metrics.py, each process has its own views.

In training, a step's work is divided into shards, always the same ones; a process owns some of them.  Gradients of
shards are added in one fixed binary tree, so the result has the same bits for any number of processes.  (An
``all_reduce`` adds in an order that depends on the number of processes.)  Without torchrun there is one process,
``ALONE``, and torch.distributed is never used.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

A = TypeVar("A")
# A process may wait for one that is paused in the viewer, or that saves to a slow disk.
_PATIENCE = timedelta(days=1)


class FailedElsewhere(Exception):
    """The task has failed in another process, which says why."""


def share(count: int, part: int, parts: int) -> slice:
    """A part of ``count`` things in a row: neighbors, as many as in the other parts, or one more."""
    return slice(count * part // parts, count * (part + 1) // parts)


def _tree(leaves: list[list[Tensor]]) -> list[Tensor]:
    """Sum of lists of tensors in a fixed binary tree; their number is a power of two."""
    while len(leaves) > 1:
        pairs = zip(leaves[::2], leaves[1::2], strict=True)
        leaves = [[a + b for a, b in zip(left, right, strict=True)] for left, right in pairs]
    return leaves[0]


@dataclass(frozen=True)
class Processes:
    """The processes of one task.

    Attributes:
        rank, size: this process's number, and the number of processes.
        local_size: number of processes on this machine.
        restarted: whether torchrun started the processes again after a failure.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    restarted: bool = False

    @classmethod
    def of_environment(cls) -> Processes:
        """The processes that torchrun started, connected; ``ALONE`` without torchrun or with a single process.

        gloo carries tensors on the CPU, NCCL those on GPUs; each process uses the GPU of its local rank.

        Raises:
            ValueError: torchrun's environment variables are not numbers.
        """
        try:
            rank, size, local_rank, local_size, restarts = (
                int(os.environ.get(name, usual))
                for name, usual in (
                    ("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"),
                    ("TORCHELASTIC_RESTART_COUNT", "0"),
                )
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"torchrun's environment variables are not numbers: {error}") from None
        if size == 1:
            return ALONE
        import torch.distributed as dist

        # Before the group exists: functions of this module have the group as a default argument.  Imported later, by an
        # optimizer, they would keep the group's threads alive until Python ends, and these may then abort the process.
        import torch.distributed.nn.functional

        _end_with_parent()
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank)
        store, *_ = next(dist.rendezvous("env://", timeout=_PATIENCE))
        # torchrun keeps its store when it starts processes again, with the addresses of the dead ones in it.
        fresh = dist.PrefixStore(_agreed_name(store, rank, size), store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=_PATIENCE)
        return cls(rank, size, local_size, restarts > 0)

    @property
    def first(self) -> bool:
        """Whether this process prints, logs, saves and serves the viewer."""
        return self.rank == 0

    def only_first(self, context: Callable[[], AbstractContextManager[Any]]) -> AbstractContextManager[Any]:
        """A context manager that only the first process enters."""
        return context() if self.first else nullcontext()

    def part(self, count: int) -> slice:
        """This process's part of ``count`` things in a row; the parts by rank, one after the other, are all of them."""
        return share(count, self.rank, self.size)

    def own(self, shards: int) -> range:
        """The shards of this process: neighbors, so that their sum is a branch of the tree.

        Raises:
            ValueError: the processes cannot share ``shards`` evenly.
        """
        if shards % self.size or shards & (shards - 1):
            raise ValueError(
                f"--shards {shards} and {self.size} processes: expected a number of shards that is a power of two and "
                "a multiple of the number of processes"
            )
        return self.shares(shards)[self.rank]

    def shares(self, shards: int) -> list[range]:
        """The shards of every process, by rank."""
        each = shards // self.size
        return [range(rank * each, (rank + 1) * each) for rank in range(self.size)]

    def sum(self, leaves: list[list[Tensor]]) -> list[Tensor]:
        """Sum of all shards' tensors, the same bits on every process for any number of processes.

        Args:
            leaves: for each own shard, in order, tensors of the same shapes.
        """
        total = _tree(leaves)
        if self.size == 1:
            return total
        import torch.distributed as dist

        flat = torch.cat([value.reshape(-1) for value in total])
        share = -(-len(flat) // self.size)
        sent = flat.new_zeros(share * self.size)
        sent[: len(flat)] = flat
        received = torch.empty_like(sent)
        with self._connected():
            dist.all_to_all_single(received, sent)
        part = _tree([[piece] for piece in received.view(self.size, share)])[0]
        with self._connected():
            _gather_into(sent, part.contiguous())
        pieces = sent[: len(flat)].split([value.numel() for value in total])
        # In each tensor's own memory format: fused Adam walks parameter and gradient in memory order.
        return [
            torch.empty_like(value).copy_(piece.view(value.shape)) for piece, value in zip(pieces, total, strict=True)
        ]

    def gather(self, own: Tensor | None, lengths: Sequence[int]) -> Tensor:
        """All processes' tensors [n, ...] in order of rank, one after the other.

        Args:
            own: this process's tensor; None if its n is 0 (the others then are float32, on the CPU).
            lengths: n of every process.
        """
        if self.size == 1:
            assert own is not None, "a single process has everything"
            return own
        if 0 in lengths:
            shapes = self.exchange("" if own is None else " ".join(map(str, own.shape[1:])))
            shape = next(text for text, n in zip(shapes, lengths, strict=True) if n)
            own = torch.empty(0, *map(int, shape.split())) if own is None else own
        assert own is not None

        padded = own.new_zeros(max(lengths), *own.shape[1:])
        padded[: len(own)] = own
        everything = padded.new_empty(self.size * len(padded), *own.shape[1:])
        with self._connected():
            _gather_into(everything, padded)
        of_ranks = everything.view(self.size, *padded.shape)
        return torch.cat([rows[:n] for rows, n in zip(of_ranks, lengths, strict=True)])

    def exchange(self, text: str) -> list[str]:
        """The texts of all processes, by rank."""
        if self.size == 1:
            return [text]
        content = torch.frombuffer(bytearray(b">" + text.encode()), dtype=torch.uint8)  # never empty
        sizes = self.gather(torch.tensor([len(content)]), [1] * self.size).tolist()
        everything = self.gather(content, sizes)
        return [part.numpy().tobytes()[1:].decode() for part in everything.split(sizes)]

    def any(self, word: bool) -> bool:
        """Whether any process says yes."""
        return bool(self.gather(torch.tensor([int(word)]), [1] * self.size).any())

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """The others' connections break when one of them fails: it says why itself.

        Raises:
            ValueError: this is the first process.
            FailedElsewhere: this is another one.
        """
        try:
            yield
        except RuntimeError as error:
            if not self.first:
                raise FailedElsewhere from None
            reason = str(error).splitlines()[0][:160]
            raise ValueError(f"another process has ended ({reason})") from None

    def together(self, work: Callable[[], A]) -> A:
        """Do something that may fail on every process: if it fails on one, all end, and one of them says why.

        Raises:
            ValueError: this is the first process, and ``work`` failed with it on some process.
            FailedElsewhere: this is another process, and ``work`` failed somewhere.
        """
        if self.size == 1:
            return work()
        result, error = None, ""
        try:
            result = work()
        except (ValueError, OSError) as failed:
            error = str(failed) or type(failed).__name__
        errors = self.exchange(error)
        wrong = [rank for rank, text in enumerate(errors) if text]
        if wrong and self.first:
            where = "" if len(wrong) == self.size else f"process {wrong[0]} of {self.size}: "
            raise ValueError(where + errors[wrong[0]])
        if wrong:
            raise FailedElsewhere
        return result  # type: ignore[return-value]

    def same(self, what: str, value: str) -> None:
        """Check that all processes have the same value of something.

        Raises:
            ValueError: they differ (on the first process; the others end).
        """
        values = self.exchange(value)
        other = next((rank for rank, v in enumerate(values) if v != values[0]), None)
        if other is None:
            return
        if not self.first:
            raise FailedElsewhere
        raise ValueError(f"{what} of process 0 is {values[0]}, and of process {other} {values[other]}")

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave the other processes, whose connections break if they wait for this one.

        After an error on a GPU the connections break when the process ends: NCCL would wait for what the others do.
        """
        if self.size > 1 and (kind is None or not torch.cuda.is_available()):
            import torch.distributed as dist

            dist.destroy_process_group()


ALONE = Processes()


def _gather_into(everything: Tensor, own: Tensor) -> None:
    """All processes' tensors of one length, one after the other, in ``everything``."""
    import torch.distributed as dist

    # PyTorch 2.14 renamed it, and warns about the old name.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(everything, own)


def _agreed_name(store: Any, rank: int, size: int) -> str:
    """A name that the processes of this start share, and no earlier start had.

    The first process proposes a name, the others answer under it with one of their own, and the first publishes the
    answers.  A process that does not find its own answer there has read the name of an earlier start.
    """
    mine = uuid.uuid4().hex
    if rank == 0:
        store.set("name", mine)
        answers = [store.get(f"{mine}/{other}").decode() for other in range(1, size)]
        store.set(f"{mine}/all", " ".join(answers))
        return mine
    while True:
        name = store.get("name").decode()
        store.set(f"{name}/{rank}", mine)
        for _ in range(20):
            if store.check([f"{name}/all"]) or store.get("name").decode() != name:
                break
            time.sleep(0.05)
        if store.check([f"{name}/all"]) and mine in store.get(f"{name}/all").decode().split():
            return name
        time.sleep(0.05)


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the agent that started this process dies: it would go on training otherwise."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
