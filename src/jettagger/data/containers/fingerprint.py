"""What tells one file from another where the container carries no identity of its own: size and content."""

import hashlib

from jettagger.data.locations import is_remote, opened_binary, size

BLOCK_BYTES = 2**14
BLOCKS = 64
END_BYTES = 2**16
"""Bytes at the beginning and at the end that always count: headers, and the directories of archives."""


def all_counts(length: int) -> bool:
    """Whether every byte of a file of this length enters its fingerprint."""
    return length <= BLOCKS * BLOCK_BYTES + 2 * END_BYTES


def fingerprint(location: str) -> str:
    """Size and hash of a file; neither name nor date.

    Of a file of more than about a megabyte, BLOCKS blocks at equal distances and both ends are hashed, so a
    change of a few bytes between them is not seen. Of a file at a URL, only both ends.
    """
    length = size(location)
    digest = hashlib.blake2b(digest_size=16)
    with opened_binary(location) as stream:
        if all_counts(length):
            digest.update(stream.read(length))
        else:
            digest.update(stream.read(END_BYTES))
            for number in range(0 if is_remote(location) else BLOCKS):
                stream.seek(length * number // BLOCKS)
                digest.update(stream.read(BLOCK_BYTES))
            stream.seek(length - END_BYTES)
            digest.update(stream.read(END_BYTES))
    return f"{length}:{digest.hexdigest()}"
