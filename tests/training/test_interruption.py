"""SIGTERM and SIGUSR1: the step is finished and saved, and the same command goes on to the same weights."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jettagger.data.executors import local_processes
from jettagger.errors import JettaggerError
from jettagger.files import sha256
from jettagger.training import interruption, loop
from jettagger.training.checkpoints import LAST, load_weights
from jettagger.training.interruption import (
    MARKER,
    Interrupted,
    asked_to_stop,
    heeded,
    interrupted_before,
    marking,
    noted,
)
from memory import equal, make_training


def signalled_in(function: Callable[..., Any], at: int, number: int) -> Callable[..., Any]:
    """`function`, in whose call number `at` (from 1) this process gets a signal."""
    calls = 0

    def called(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), number)
        return function(*arguments, **named)

    return called


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_step_is_finished_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    alone = loop.train_member(make_training(tmp_path / "alone", ema=0.9))
    folder = tmp_path / "member_0"
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_step", signalled_in(loop.make_step, 8, number))
        with (
            pytest.raises(Interrupted, match=r"after step 8, which is saved in .*member_0"),
            heeded(),
            marking([folder, tmp_path / "member_1"], overwriting=False),
        ):
            loop.train_member(make_training(folder, ema=0.9))
    assert signal.getsignal(number) is before
    marker = json.loads((folder / MARKER).read_text())
    assert marker.items() >= {"signal": signal.Signals(number).name, "step": 8, "overwriting": False}.items()
    assert not (tmp_path / "member_1").exists()
    assert interrupted_before([folder], overwriting=False) == signal.Signals(number).name
    with heeded(), marking([folder], overwriting=False):
        resumed = loop.train_member(make_training(folder, ema=0.9), resume=True)
    assert equal(load_weights(resumed.weights), load_weights(alone.weights))
    assert not (folder / MARKER).exists()


def test_a_validation_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = loop.train_member(make_training(tmp_path / "alone"))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", signalled_in(loop.validate, 2, signal.SIGTERM))
        with pytest.raises(Interrupted, match="after step 12, which is saved"), heeded():
            loop.train_member(make_training(tmp_path / "cut"))
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 1
    resumed = loop.train_member(make_training(tmp_path / "cut"), resume=True)
    assert equal(load_weights(resumed.weights), load_weights(alone.weights))
    assert len(resumed.history) == 3


def test_outside_a_training_the_end_comes_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(Interrupted, match="interrupted by SIGUSR1: the same command goes on"), heeded():
        signalled_in(time.sleep, 1, signal.SIGUSR1)(60)
    assert time.monotonic() - began < 30
    assert asked_to_stop() is None


def test_who_does_not_ask_is_interrupted_at_the_end() -> None:
    seen = []
    with pytest.raises(Interrupted), heeded(), noted(), noted():
        seen.append(signalled_in(asked_to_stop, 1, signal.SIGTERM)())
    assert seen == ["SIGTERM"]


def test_handlers_are_set_in_the_main_thread_only() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with heeded():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_library_call_sets_no_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []
    whole = loop.make_step
    monkeypatch.setattr(
        loop, "make_step", lambda *given: (seen.append(signal.getsignal(signal.SIGTERM)), whole(*given))
    )
    loop.train_member(make_training(tmp_path, epochs=1))
    assert set(seen) == {before}


def test_what_was_overwriting_goes_on_and_nothing_else_is_kept_from_it(tmp_path: Path) -> None:
    for name, overwriting in (("plain", False), ("overwriting", True)):
        (tmp_path / name).mkdir()
        with pytest.raises(Interrupted), marking([tmp_path / name], overwriting=overwriting):
            raise Interrupted("SIGTERM")
    assert interrupted_before([tmp_path / "plain"], overwriting=True) is None
    assert interrupted_before([tmp_path / "plain"], overwriting=False) == "SIGTERM"
    assert interrupted_before([tmp_path / "overwriting"], overwriting=True) == "SIGTERM"
    assert interrupted_before([tmp_path / "absent"], overwriting=False) is None
    (tmp_path / "plain" / MARKER).write_text("{")
    with pytest.raises(
        JettaggerError, match=r"interrupted.json cannot be read .*: --resume goes on without it"
    ):
        interrupted_before([tmp_path / "plain"], overwriting=False)


SECOND = """
import os, signal, sys, time
from jettagger.training import interruption
interruption.SAME = float(sys.argv[1])
with interruption.heeded(), interruption.noted():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGUSR1)
    print("still there", flush=True)
"""


@pytest.mark.parametrize(("same", "ended", "out"), [(0.0, -signal.SIGUSR1, ""), (9.0, 1, "still there\n")])
def test_a_second_signal_ends_it_at_once(same: float, ended: int, out: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SECOND, str(same)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (ended, out)


def started(toy_folder: Path, output: Path, *overrides: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "jettagger", "train", str(toy_folder / "config.yaml"), "-o", str(output)]
    options = [
        *("training.epochs=200", "training.threads=1", "training.precision=float32"),
        *("ensemble.members=2", "baselines={}", *overrides),
    ]
    command += [word for option in options for word in ("--set", option)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_the_command_goes_on_by_itself(toy_folder: Path, tmp_path: Path) -> None:
    """Interrupted in its first member and in its second; each time the very same command goes on."""
    alone, cut = tmp_path / "alone", tmp_path / "cut"
    running = started(toy_folder, alone, "training.epochs=15")
    for member in (0, 1):
        process = started(toy_folder, cut, "training.epochs=15")
        wait_for(cut / f"member_{member}" / LAST, process)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
        assert process.returncode == interruption.STATUS, error
        assert "jettagger: interrupted by SIGTERM after step" in error
        assert json.loads((cut / f"member_{member}" / MARKER).read_text())["step"] > 0
    process = started(toy_folder, cut, "training.epochs=15")
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert "going on with what SIGTERM interrupted" in out
    running.communicate(timeout=120)
    assert running.returncode == 0
    weights = Path("tagger") / "weights.safetensors"
    assert sha256(cut / weights) == sha256(alone / weights)
    assert not list(cut.rglob(MARKER))
    assert not list(cut.rglob(".*"))
    process = started(toy_folder, cut, "training.epochs=15")
    process.communicate(timeout=60)
    assert process.returncode == 2, "a run that has ended is not gone on with unasked"


SLOW_DATA = """
import sys, time
from pathlib import Path
from jettagger import cli
from jettagger.training import among_ranks
began = Path(sys.argv[1])
def waiting(*given, **named):
    began.touch()
    time.sleep(50)
among_ranks.prepare_folds = waiting
sys.argv[:2] = ["jettagger"]
cli.main()
"""


@pytest.mark.slow
def test_the_command_ends_quickly_while_data_are_prepared(toy_folder: Path, tmp_path: Path) -> None:
    words = ["train", str(toy_folder / "config.yaml"), "-o", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_DATA, str(tmp_path / "began"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "began", process)
    began = time.monotonic()
    process.send_signal(signal.SIGUSR1)
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert (process.returncode, error) == (
        75,
        "jettagger: interrupted by SIGUSR1: the same command goes on (exit status 75)\n",
    )


def test_workers_end_with_an_interruption() -> None:
    def interrupted() -> None:
        with heeded(), local_processes(1) as executor:
            executor.submit(time.sleep, 0.0).result()  # it is up
            executor.submit(time.sleep, 60.0)
            signalled_in(time.sleep, 1, signal.SIGTERM)(60)

    began = time.monotonic()
    with pytest.raises(Interrupted):
        interrupted()
    assert time.monotonic() - began < 30
