"""Files are whole or absent, whatever happens while they are written."""

import errno
import hashlib
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jettagger import files
from jettagger.errors import JettaggerError


class Interrupted(BaseException):
    """Like KeyboardInterrupt, which is no Exception."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_keeps_its_suffix_on_the_way(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "scores.root"
    with files.written_aside(target) as aside:
        assert aside.suffix == ".root"
        assert aside.parent == target.parent
        aside.write_text("scores")
        assert not target.exists()
    assert target.read_text() == "scores"
    assert names(target.parent) == ["scores.root"]
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, OSError, Interrupted])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")

    def write() -> None:
        with files.written_aside(target) as aside:
            aside.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_a_writer_may_replace_the_file_that_it_was_given(tmp_path: Path) -> None:
    with files.written_aside(tmp_path / "a.h5") as aside:
        aside.unlink()
        aside.write_text("made anew")
    assert (tmp_path / "a.h5").read_text() == "made anew"


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    with (
        pytest.raises(JettaggerError, match=r"cannot write .*: it is a folder"),
        files.written_aside(tmp_path),
    ):
        pass


def test_a_directory_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "tagger"
    target.mkdir()
    (target / "stale").write_text("old")
    with files.directory_written_aside(target) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "weights").write_text("new")
        assert names(target) == ["stale"]
    assert names(target) == ["deep"]
    assert (target / "deep" / "weights").read_text() == "new"
    assert names(tmp_path) == ["tagger"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_new_directory_makes_its_parents(tmp_path: Path) -> None:
    with files.directory_written_aside(tmp_path / "a" / "b") as aside:
        (aside / "file").touch()
    assert names(tmp_path / "a") == ["b"]
    assert names(tmp_path / "a" / "b") == ["file"]


def test_a_dangling_link_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "latest"
    target.symlink_to(tmp_path / "gone")
    with files.directory_written_aside(target) as aside:
        (aside / "file").touch()
    assert not target.is_symlink()
    assert names(target) == ["file"]


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_an_error_leaves_the_old_directory_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "tagger"
    target.mkdir()
    (target / "weights").write_text("old")

    def write() -> None:
        with files.directory_written_aside(target) as aside:
            (aside / "weights").write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert (target / "weights").read_text() == "old"
    assert names(tmp_path) == ["tagger"]


def test_a_failed_exchange_puts_the_old_directory_back(tmp_path: Path) -> None:
    target = tmp_path / "tagger"
    target.mkdir()
    (target / "weights").write_text("old")

    def write() -> None:
        with files.directory_written_aside(target) as aside:
            aside.rmdir()

    with pytest.raises(FileNotFoundError):
        write()
    assert (target / "weights").read_text() == "old"
    assert names(tmp_path) == ["tagger"]


def test_json_is_readable_and_written_whole(tmp_path: Path) -> None:
    content = {"auc": 0.5, "name": "Δφ", "runs": [1, None, True]}
    files.write_json(tmp_path / "report.json", content)
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "Δφ" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_json_has_not(tmp_path: Path, value: float) -> None:
    files.write_json(tmp_path / "report.json", {"auc": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "report.json", {"auc": value})
    assert json.loads((tmp_path / "report.json").read_text()) == {"auc": 1.0}
    assert names(tmp_path) == ["report.json"]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert files.sha256(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")
    (tmp_path / "long").write_bytes(b"jet" * 1_000_000)
    assert files.sha256(str(tmp_path / "long")) == hashlib.sha256(b"jet" * 1_000_000).hexdigest()


def _enter(writer: Callable[[Path], object]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with writer(path):  # type: ignore[attr-defined]
            pytest.fail("the body must not run")

    return write


WRITERS = [
    _enter(files.written_aside),
    _enter(files.directory_written_aside),
    files.check_writable,
    lambda path: files.write_json(path, {}),
]


@pytest.mark.parametrize("below", ["x.json", "deeper/x.json"])
@pytest.mark.parametrize("write", WRITERS)
def test_an_unwritable_place_is_named(tmp_path: Path, write: Callable[[Path], object], below: str) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(JettaggerError, match=rf"cannot write .*{below}: what should be its folder is a file"):
        write(tmp_path / "file" / below)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("write", WRITERS)
def test_other_reasons_are_given_as_the_system_words_them(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    with pytest.raises(JettaggerError, match=r"cannot write .*: File name too long"):
        write(tmp_path / ("x" * 300))


def test_check_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("old")
    files.check_writable(tmp_path)
    files.check_writable(tmp_path / "old.json")
    files.check_writable(tmp_path / "new.json")
    assert names(tmp_path) == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "old"


def test_of_rivals_the_last_one_s_directory_stays_whole(tmp_path: Path) -> None:
    """Without a lock: each writer takes the place of the one before, and none fails."""
    target = tmp_path / "tagger"

    def write(number: int) -> None:
        for _ in range(20):
            with files.directory_written_aside(target) as aside:
                for name in ("weights", "card"):
                    (aside / name).write_text(str(number))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write, number) for number in range(4)]:
            done.result()
    assert names(tmp_path) == ["tagger"]
    assert names(target) == ["card", "weights"]
    assert (target / "card").read_text() == (target / "weights").read_text()


def test_one_at_a_time(tmp_path: Path) -> None:
    lock, inside, most = tmp_path / "run" / ".lock", [0], [0]

    def work() -> None:
        for _ in range(10):
            with files.one_at_a_time(lock):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.0005)
                inside[0] -= 1

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    assert most == [1]
    assert names(tmp_path / "run") == []


def test_an_error_inside_lets_the_next_one_in(tmp_path: Path) -> None:
    def fail() -> None:
        with files.one_at_a_time(tmp_path / ".lock"):
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    with files.one_at_a_time(tmp_path / ".lock"):
        pass


def test_where_the_file_system_has_no_locks_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with files.one_at_a_time(tmp_path / ".lock"), files.one_at_a_time(tmp_path / ".lock"):
        pass
