"""Files behind URLs: the same data and the same errors as for files that are here."""

import socket
import sys
from pathlib import Path

import awkward as ak
import pytest

from jettagger.data import locations
from jettagger.data.locations import find_files, opened_binary, size
from jettagger.data.reader import source_of
from jettagger.errors import JettaggerError
from toy_jets import toy_jets, write_jets

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

from http_server import served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some files; not to be changed."""
    folder = tmp_path_factory.mktemp("web")
    write_jets(folder / "QCD_1.root", toy_jets("QCD", 60, 1))
    write_jets(folder / "QCD_2.root", toy_jets("QCD", 60, 2), rntuple=True)
    (folder / "short.root").write_bytes((folder / "QCD_1.root").read_bytes()[:5000])
    (folder / "text.root").write_text("<html>no such page, but politely</html>")
    (folder / "secret.root").touch()
    (folder / "slow.root").write_bytes(bytes(100))
    return folder


@pytest.fixture(scope="module")
def url(folder):
    with served(folder) as url:
        yield url


@pytest.mark.parametrize("name", ["QCD_1.root", "QCD_2.root"])
def test_remote_data_are_the_local_data(folder, url, name):
    local, remote = source_of(folder / name), source_of(f"{url}/{name}")
    assert remote.entries == 60
    assert remote.identity == local.identity
    here = local.read(local.branches, 3, 50).branches
    there = remote.read(remote.branches, 3, 50).branches
    assert all(ak.array_equal(here[name], there[name]) for name in here)


def test_remote_files_are_streams_with_a_size(folder, url):
    content = (folder / "QCD_1.root").read_bytes()
    for location in (str(folder / "QCD_1.root"), f"{url}/QCD_1.root"):
        assert size(location) == len(content)
        with opened_binary(location) as stream:
            stream.seek(1000)
            assert stream.read(50) == content[1000:1050]
            stream.seek(-20, 2)
            assert stream.read() == content[-20:]


def test_globs_in_urls(url):
    assert find_files([f"{url}/QCD_*.root", f"{url}/other.root"], where="x") == [
        f"{url}/QCD_1.root",
        f"{url}/QCD_2.root",
        f"{url}/other.root",
    ]
    with pytest.raises(
        JettaggerError, match=r"data\.train\.W: no file matches 'http.*/W_\*\.root' \(the server has"
    ):
        find_files(f"{url}/W_*.root", where="data.train.W")


def test_globs_need_a_server_that_lists(monkeypatch):
    class Blind:
        def glob(self, path: str) -> list[str]:
            raise NotImplementedError

    monkeypatch.setattr(locations, "filesystem", lambda location: (Blind(), location))
    with pytest.raises(
        JettaggerError, match=r"x: 'https://a/\*\.root': https:// cannot list files: name each"
    ):
        find_files("https://a/*.root", where="x")


def test_what_is_wrong_with_a_remote_file_is_said(url, monkeypatch):
    with pytest.raises(JettaggerError, match=r"no such file: http://.*/nowhere\.root"):
        _ = source_of(f"{url}/nowhere.root").entries
    with pytest.raises(JettaggerError, match=r"http://.*/short\.root is truncated: its header says"):
        _ = source_of(f"{url}/short.root").entries
    with pytest.raises(JettaggerError, match=r"http://.*/text\.root is of no known container"):
        _ = source_of(f"{url}/text.root").entries
    with pytest.raises(
        JettaggerError, match=r"cannot read http://.*/secret\.root: 127.* answered 403 Forbidden"
    ):
        _ = source_of(f"{url}/secret.root").entries
    monkeypatch.setattr(locations, "ANSWER_S", 0.3)
    with pytest.raises(
        JettaggerError, match=r"cannot read .*/slow\.root: 127.* did not answer within 0\.3 s"
    ):
        _ = source_of(f"{url}/slow.root").entries


def test_a_server_that_is_not_there(url):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(
            JettaggerError, match=rf"cannot read http://{host}/a\.root: {host} cannot be reached"
        ):
            _ = source_of(f"http://{host}/a.root").entries
        with pytest.raises(JettaggerError, match=rf"{host} cannot be reached"):
            size(f"http://{host}/a.root")


def test_a_server_without_range_requests(folder):
    with (
        served(folder, ranges=False) as url,
        pytest.raises(JettaggerError, match=r"does not give parts of a file"),
    ):
        _ = source_of(f"{url}/QCD_1.root").entries


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec_xrootd", None)
    with pytest.raises(JettaggerError, match=r"root:// needs fsspec-xrootd \(pip install fsspec-xrootd\)"):
        _ = source_of("root://eos.example//store/a.root").entries
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(JettaggerError, match=r"https:// needs aiohttp \(pip install aiohttp\)"):
        _ = source_of("https://example.org/a.root").entries
    with pytest.raises(JettaggerError, match=r"unknown protocol 'htps': did you mean https://\?"):
        _ = source_of("htps://example.org/a.root").entries
