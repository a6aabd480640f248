"""ROOT files of every compression, with and without checksums, and ways to break them."""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import awkward as ak
import numpy as np
import uproot
import xxhash
from uproot.writing import _cascadentuple

from jettagger.data.containers.base import Opening
from jettagger.data.reader import source_of
from jettagger.errors import JettaggerError

COMPRESSIONS = {
    "zlib": uproot.ZLIB(4),
    "lz4": uproot.LZ4(4),
    "lzma": uproot.LZMA(2),
    "zstd": uproot.ZSTD(5),
    "none": None,
}


def compressible_jets(jets: int, seed: int = 1) -> dict[str, Any]:
    """Branches whose numbers repeat, so that each of them shrinks: content that does not is stored as it is."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(9, jets)
    px = (rng.integers(-40, 40, counts.sum()) / 4).astype(np.float32)
    return {
        "jet_pt": np.repeat(np.arange(500, 500 + -(-jets // 8)), 8)[:jets].astype(np.float32),
        "label_QCD": np.ones(jets, bool),
        "part_px": ak.unflatten(px, counts),
    }


def write(path: Path, kind: str, compression: str, branches: dict[str, Any], *, steps: int = 1) -> Path:
    """The branches as `tree`, in `steps` baskets or clusters."""
    jets = len(branches["jet_pt"])
    edges = [jets * step // steps for step in range(steps + 1)]
    with uproot.recreate(path, compression=COMPRESSIONS[compression]) as file:
        for low, high in pairwise(edges):
            part = {name: values[low:high] for name, values in branches.items()}
            if low == 0 and kind == "rntuple":
                tree = file.mkrntuple("tree", part)
                continue
            if low == 0:
                types = {k: v.type if isinstance(v, ak.Array) else v.dtype for k, v in part.items()}
                tree = file.mktree("tree", types)
            tree.extend(part)
    return path


def write_with_page_checksums(path: Path, branches: dict[str, Any], *, compression: str = "zstd") -> Path:
    """An RNTuple as ROOT writes it: with a checksum behind each page, which uproot leaves out."""
    add = _cascadentuple.NTuple.add_rblob

    def with_checksum(tree: Any, sink: Any, content: Any, length: int) -> Any:
        content = bytes(content)
        return add(tree, sink, content + struct.pack("<Q", xxhash.xxh3_64_intdigest(content)), length)

    def marked(page: Any) -> bytes:
        return struct.pack("<i", -page.num_entries) + bytes(page.locator.serialize())

    with (
        mock.patch.object(_cascadentuple.NTuple, "add_rblob", with_checksum),
        mock.patch.object(_cascadentuple.NTuple_PageDescription, "serialize", marked),
    ):
        return write(path, "rntuple", compression, branches)


def everything(path: Path, tree: str | None = None) -> dict[str, list[bytes]]:
    """All that a file holds, to be compared."""
    source = source_of(path, Opening(tree))
    arrays = source.read(source.branches, 0, source.entries).branches
    found = {}
    for name, array in arrays.items():
        form, _, buffers = ak.to_buffers(ak.to_packed(ak.Array(array)))
        found[name] = [str(form.type).encode(), *(np.asarray(b).tobytes() for b in buffers.values())]
    return found


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def flip_counts(path: Path, flips: int, seed: int = 1) -> dict[str, int]:
    """How flips of single random bits anywhere in a file end.

    `error`; `unnamed`: an error that does not name the file; `harmless`: in bytes that are not looked at; `silent`:
    in a wrong number.
    """
    content, expected = path.read_bytes(), everything(path)
    broken = path.with_name(f"flipped_{path.name}")
    counts = {"error": 0, "harmless": 0, "silent": 0, "unnamed": 0}
    for bit in np.random.default_rng(seed).integers(len(content) * 8, size=flips).tolist():
        broken.write_bytes(flipped(content, bit))
        try:
            found = everything(broken)
        except JettaggerError as error:
            counts["error" if broken.name in str(error) else "unnamed"] += 1
        else:
            counts["harmless" if found == expected else "silent"] += 1
    return counts


if __name__ == "__main__":  # the table in docs/containers.md: PYTHONPATH=src:tests python tests/root_files.py
    import tempfile

    folder = Path(tempfile.mkdtemp())
    for kind in ("ttree", "rntuple"):
        for name in COMPRESSIONS:
            file = write(folder / f"{kind}_{name}.root", kind, name, compressible_jets(3000), steps=2)
            print(kind, name, flip_counts(file, 250))
    file = write_with_page_checksums(folder / "checksums.root", compressible_jets(3000))
    print("rntuple zstd with page checksums", flip_counts(file, 250))
