"""Content of a sample -> the hash that identifies it."""

import hashlib

DIGEST_BYTES = 16


def digest_of(content: bytes) -> bytes:
    """Return the 16-byte hash that identifies this content."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
