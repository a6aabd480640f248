"""Choice of device and precision."""

from pathlib import Path

import pytest
import torch

from jettagger.errors import JettaggerError
from jettagger.training import device
from jettagger.training.device import choose_hardware, threads


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_cuda")
def test_without_cuda() -> None:
    assert choose_hardware("auto").device == torch.device("cpu")
    with pytest.raises(JettaggerError, match="cuda:1 asked for, but PyTorch sees no CUDA device"):
        choose_hardware("cuda:1")


def test_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
    assert choose_hardware("auto").device == torch.device("cuda:0")
    assert choose_hardware("cuda:1").description == "cuda:1, Tesla V100, float32"
    assert choose_hardware("cpu").device == torch.device("cpu")
    with pytest.raises(JettaggerError, match="cuda:2 asked for, but the last CUDA device is cuda:1"):
        choose_hardware("cuda:2")
    with pytest.raises(
        JettaggerError, match=r"cuda:0 \(Tesla V100\) has none \(it needs compute capability 8"
    ):
        choose_hardware("cuda", "bfloat16")


@pytest.mark.parametrize(
    ("flags", "native"), [("fpu avx512f avx512_bf16", True), ("fpu avx2", False), ("", False)]
)
def test_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, native: bool
) -> None:
    cpuinfo = {"flags": flags, "model name": "Some CPU"} if flags else {}
    monkeypatch.setattr(device, "_cpuinfo", lambda: cpuinfo)
    assert choose_hardware("cpu", "auto").bfloat16 is native
    assert not choose_hardware("cpu", "float32").bfloat16
    if native:
        with threads(1):
            assert choose_hardware("cpu").description == "cpu, Some CPU, 1 thread, bfloat16 autocast"
    else:
        with pytest.raises(
            JettaggerError, match=r"bfloat16 asked for, but cpu .* has none \(it needs AVX512"
        ):
            choose_hardware("cpu", "bfloat16")


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with threads(None):
        assert torch.get_num_threads() == before
