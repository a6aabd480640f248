"""The processes that train together: how they find each other, and how they agree.

`torchrun` (or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT) starts one process
for each GPU, or for some cores; each is a rank. Tensors are summed by NCCL on GPUs and by Gloo on CPUs. Everything
else goes through rank 0, which alone reads and writes the run's folder.
"""

import pickle
import re
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from jettagger.errors import JettaggerError
from jettagger.training.presence import Gone, awaited, present

T = TypeVar("T")

SAYING_SECONDS = 1.0
"""Head start of the rank that reports an error: launchers end all processes when the first has ended."""


class _Link:
    """What connects the ranks."""

    def __init__(self, store: Store, limit: float, control: dist.ProcessGroup | None = None) -> None:
        self.store, self.limit = store, limit
        self.control = control
        """For objects in the memory of the host; the default group is for tensors."""
        self.talks = 0

    def topic(self) -> str:
        """A name in the store that all ranks come to in the same order."""
        self.talks += 1
        return f"jettagger/{self.talks}"


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train together. `Ranks()` is a process that trains alone."""

    rank: int = 0
    world: int = 1
    """How many ranks there are."""
    local: int = 0
    """Its number among those of its machine."""
    restarts: int = 0
    """How often torchrun has started the ranks again (--max-restarts): then the command goes on."""
    link: _Link | None = None

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def saying(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """`say` on rank 0; on the others nothing."""
        return say if self.first else lambda line: None

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all ranks, in the place of `x`, with the same bits on each of them."""
        return self.begin_sum(x)()

    def begin_sum(self, x: Tensor) -> Callable[[], Tensor]:
        """Starts to sum `x` in its place; what is returned waits for the sum."""
        if self.link is None:
            return lambda: x
        with self._contact():
            work = dist.all_reduce(x, async_op=True)

        def end() -> Tensor:
            assert work is not None
            with self._contact():
                work.wait()
            return x

        return end

    def summed(self, x: Tensor) -> Tensor:
        """The sum over all ranks as a function of each rank's `x`: its gradient is summed over them too."""
        result: Tensor = _Sum.apply(x, self)  # type: ignore[no-untyped-call]
        return result

    def agreed(self, said: str | None) -> str | None:
        """What the first rank says that says something, on all ranks."""
        return next((one for one in self.gathered_by_all(said) if one is not None), None)

    def first_does(self, work: Callable[[], T]) -> T:
        """What rank 0 gets from `work`, on all ranks; the others wait for as long as it takes.

        Raises rank 0's JettaggerError on all of them.
        """
        if self.link is None:
            return work()
        topic = self.link.topic()
        if not self.first:
            message = self._awaited({0: topic})[0]
            if isinstance(message, Gone):
                raise JettaggerError(message.words(self.world))
            if message:
                raise self.of_all(JettaggerError(message.decode()))
            return cast(T, self.from_first(None))
        try:
            result = work()
        except JettaggerError as error:
            self.link.store.set(topic, str(error) or "error")
            raise
        self.link.store.set(topic, "")
        return self.from_first(result)

    def from_first(self, value: T) -> T:
        """Rank 0's value, which is plain or holds tensors, on all ranks."""
        if self.link is None:
            return value
        box = [value if self.first else None]
        with self._contact():
            dist.broadcast_object_list(box, src=0, group=self.link.control)
        return cast(T, box[0])

    def gathered(self, value: T) -> list[T] | None:
        """The values of all ranks, in their order, on rank 0; None on the others."""
        if self.link is None:
            return [value]
        found: list[T] | None = [value] * self.world if self.first else None
        with self._contact():
            dist.gather_object(value, found, dst=0, group=self.link.control)
        return found

    def gathered_by_all(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        if self.link is None:
            return [value]
        found: list[T] = [value] * self.world
        with self._contact():
            dist.all_gather_object(found, value, group=self.link.control)
        return found

    def collected(self, value: T) -> tuple[list[T], list[Gone]]:
        """On rank 0 the values of all ranks, for which it waits as long as they are there, and the ranks that are gone
        without one; on the others their own value."""
        if self.link is None:
            return [value], []
        topic = self.link.topic()
        with self._contact():
            self.link.store.set(f"{topic}/{self.rank}", pickle.dumps(value).hex())
        if not self.first:
            return [value], []
        found = self._awaited({rank: f"{topic}/{rank}" for rank in range(self.world)})
        ordered = [found[rank] for rank in range(self.world)]
        values = [pickle.loads(bytes.fromhex(one.decode())) for one in ordered if not isinstance(one, Gone)]
        return values, [one for one in ordered if isinstance(one, Gone)]

    def check_same(self, what: str, value: Any) -> None:
        """Raises JettaggerError, on all ranks, where they differ in what they must have in common."""
        values = self.gathered_by_all(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise self.of_all(
                    JettaggerError(f"the ranks differ in {what}: rank 0 has {values[0]}, rank {rank} {other}")
                )

    def check_alone(self, command: str) -> None:
        """Raises JettaggerError where a launcher has started several processes of a command that runs in one."""
        if self.world > 1:
            raise self.of_all(
                JettaggerError(
                    f"jettagger {command} runs in one process, and WORLD_SIZE is {self.world}: start it without"
                    " torchrun"
                )
            )

    def of_all(self, error: JettaggerError) -> JettaggerError:
        """An error that all ranks raise: rank 0 reports it, the others end after it."""
        if not self.first:
            error.said = True
            self.after_first()
        return error

    def after_first(self) -> None:
        """Before the end of all ranks: gives rank 0 its head start."""
        if not self.first:
            time.sleep(SAYING_SECONDS)

    def _awaited(self, topics: Mapping[int, str]) -> dict[int, bytes | Gone]:
        """What ranks leave under a name each: see `awaited`."""
        assert self.link is not None
        with self._contact():
            return awaited(self.link.store, topics, self.link.limit)

    @contextmanager
    def _contact(self) -> Generator[None, None, None]:
        """Says in words that other ranks are gone: of that Gloo raises RuntimeError, NCCL and the store DistError."""
        try:
            yield
        except RuntimeError as error:
            self._lost(error)

    def _lost(self, error: RuntimeError) -> NoReturn:
        text = (
            re.sub(r"^\[.*?\] ", "", str(error).strip()) or type(error).__name__
        )  # without the place in Gloo's source
        reason = text.splitlines()[0].partition(". ")[0]
        raise JettaggerError(
            f"rank {self.rank} of {self.world} lost contact with the others ({reason[:200]}): a rank was killed, ran"
            " out of memory, ended with an error of its own, or stood still for longer than training.rank_timeout;"
            " the last checkpoint is whole, --resume goes on from it"
        ) from error


class _Sum(torch.autograd.Function):
    """The sum over the ranks, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        """The sum of x."""
        ctx.ranks = ranks
        return ranks.sum(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """What the losses of all ranks say of this rank's x."""
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        return ctx.ranks.sum(gradient), None


@contextmanager
def connected(ranks: Ranks, device: torch.device, timeout: float) -> Generator[Ranks, None, None]:
    """The same rank, connected with the others while the body runs; one that trains alone stays as it is.

    A collective that takes longer than `timeout` (s) ends with an error; waiting for rank 0's work does not.
    """
    if ranks.world == 1:
        yield ranks
        return
    limit = timedelta(seconds=timeout)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    with ranks._contact():
        store, _, _ = next(rendezvous("env://", timeout=limit))
        # torchrun keeps its store: what ranks that are gone have left there is not for those after them.
        store = PrefixStore(f"jettagger/{ranks.restarts}", store)
        store.set_timeout(limit)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=PrefixStore("tensors", store),
            rank=ranks.rank,
            world_size=ranks.world,
            timeout=limit,
        )
        control = dist.new_group(backend="gloo", timeout=limit) if on_gpu else dist.group.WORLD
    with present(store, ranks.rank, timeout):
        link = _Link(store, timeout, control)
        yield Ranks(ranks.rank, ranks.world, ranks.local, ranks.restarts, link)
    # After an error nothing is torn down: NCCL would wait for ranks that are gone.
    dist.destroy_process_group()
