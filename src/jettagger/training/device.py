"""Where and in which precision a network is trained."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from jettagger.errors import JettaggerError

Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Hardware:
    """A device and the precision used on it: float32, or one of the three others."""

    device: torch.device
    bfloat16: bool
    """Matrix products in bfloat16 by autocast; weights, normalisation and loss stay in float32."""
    float16: bool = False
    """The same in float16, whose small range asks for a scaled loss: see `scaling`."""
    tf32: bool = False
    """float32 whose products keep 10 bits of each factor's mantissa, on NVIDIA's tensor cores."""

    def autocast(self, *, cache: bool = True) -> AbstractContextManager[object]:
        """The context in which the network runs; without `cache` weights are converted anew at each use."""
        if not (self.bfloat16 or self.float16):
            return nullcontext()
        dtype = torch.bfloat16 if self.bfloat16 else torch.float16
        return torch.autocast(self.device.type, dtype=dtype, cache_enabled=cache)

    @contextmanager
    def products(self) -> Iterator[None]:
        """Whether float32 products on a GPU use TF32 while the body runs.

        cuDNN takes it for convolutions if nobody forbids it: float32 would not be what it says.
        """
        if self.device.type != "cuda":
            yield
            return
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before

    @property
    def precision(self) -> str:
        """float32, tf32, bfloat16 or float16."""
        others = {"bfloat16": self.bfloat16, "float16": self.float16, "tf32": self.tf32}
        return next((name for name, used in others.items() if used), "float32")

    @property
    def description(self) -> str:
        """One line: device, its name, threads, precision."""
        parts = [str(self.device), _name_of(self.device)]
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            parts.append(f"{threads} thread{'s' if threads > 1 else ''}")
        return ", ".join(
            [*parts, f"{self.precision} autocast" if self.bfloat16 or self.float16 else self.precision]
        )


def choose_hardware(device: str = "auto", precision: Precision = "auto") -> Hardware:
    """The device and precision of a config. Raises JettaggerError for what this machine has not.

    `auto` takes the first CUDA device, else the CPU. `auto` precision is bfloat16 exactly where the hardware
    multiplies it natively: a rule, not a timing, so that the same machine always gives the same numbers. On
    a CPU with AVX512-BF16 a training step gains 1.2 to 1.4 ×; a small mlp at batch 256 is as fast in both.
    """
    chosen = _choose_device(device)
    native = has_bfloat16(chosen)
    if precision == "auto":
        return Hardware(chosen, native)
    has = {"float32": True, "bfloat16": native, "float16": _has_float16(chosen), "tf32": _has_tf32(chosen)}
    if not has[precision]:
        raise JettaggerError(
            f"training.precision: {precision} asked for, but {chosen} ({_name_of(chosen)}) has none"
            f" (it needs {_needed(precision, chosen)}); write float32 or auto"
        )
    return Hardware(chosen, precision == "bfloat16", precision == "float16", precision == "tf32")


def _needed(precision: Precision, device: torch.device) -> str:
    if precision == "bfloat16" and device.type == "cpu":
        return "AVX512-BF16 or AMX"
    capability = "7.0" if precision == "float16" else "8.0"
    return f"{'a CUDA device of ' if device.type == 'cpu' else ''}compute capability {capability}"


def _has_float16(device: torch.device) -> bool:
    """Tensor cores for float16. A CPU that has it has bfloat16 too, which needs no scaling."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively; emulation does not count."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool({"avx512_bf16", "amx_bf16"} & _processor_flags())


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Runs its body with `number` CPU threads (None: as they are), then sets the old number again."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _choose_device(device: str) -> torch.device:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise JettaggerError(
            f"training.device: {device} asked for, but PyTorch sees no CUDA device; write auto or cpu"
        )
    chosen = torch.device("cuda:0" if device == "auto" else device)
    if (chosen.index or 0) >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise JettaggerError(f"training.device: {device} asked for, but the last CUDA device is cuda:{last}")
    return torch.device("cuda", chosen.index or 0)


def _name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpuinfo().get("model name", "unknown processor")


def _processor_flags() -> set[str]:
    return set(_cpuinfo().get("flags", "").split())


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
