#!/usr/bin/env python3
"""Checks that an entry is in a log, with nothing of FTE: python3 check.py PROOF LEAF KEY"""

# PROOF is a c2sp.org/tlog-proof file, LEAF the entry's bytes, KEY a file with the log's public key, `name+id+base64`. It needs Python 3.9 and, beside it,
# `ed25519.py`: signatures are the one thing that the standard library cannot check.

import sys
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

import ed25519


def check(holds, otherwise):
    if not holds:
        sys.exit(otherwise)


def opened(note, key):
    """The lines of a checkpoint that the key has signed (C2SP signed-note)."""
    name, key_id, public = key.strip().split("+", 2)
    public = b64decode(public, validate=True)
    check(public[:1] == b"\x01", "the key is none for Ed25519")
    check(sha256(name.encode() + b"\n" + public).hexdigest()[:8] == key_id, "the key was changed")
    text, signatures = note.rsplit("\n\n", 1)
    ours = [line.split(" ")[2] for line in signatures.splitlines() if line.startswith(f"\u2014 {name} ")]
    ours = [signature for signature in map(b64decode, ours) if signature[:4].hex() == key_id]
    signed = [ed25519.verifies(public[1:], f"{text}\n".encode(), signature[4:]) for signature in ours]
    check(signed and all(signed), "the key has not signed this checkpoint")
    check(text.startswith(f"{name}\n"), "the checkpoint is another log's")
    return text.split("\n")


def root(node, index, size, proof):
    """Where the hashes of a proof lead from a leaf's (RFC 9162, 2.1.3.2)."""
    last = size - 1
    for sibling in proof:
        check(last > 0, "the proof is too long")
        if index % 2 == 1 or index == last:
            node = sha256(b"\x01" + sibling + node).digest()
            while index % 2 == 0 and index > 0:
                index, last = index // 2, last // 2
        else:
            node = sha256(b"\x01" + node + sibling).digest()
        index, last = index // 2, last // 2
    check(last == 0, "the proof is too short")
    return node


check(len(sys.argv) == 4, __doc__)
file, leaf, key = (Path(path).read_bytes() for path in sys.argv[1:])
head, note = file.decode().split("\n\n", 1)
lines = [line for line in head.split("\n") if not line.startswith("extra ")]
check(lines[0] == "c2sp.org/tlog-proof@v1" and lines[1].startswith("index "), "no proof file")
index, proof = int(lines[1][len("index ") :]), [b64decode(line, validate=True) for line in lines[2:]]
origin, size, expected = opened(note, key.decode())
check(0 <= index < int(size), "the entry is not in the checkpoint")
found = root(sha256(b"\x00" + leaf).digest(), index, int(size), proof)
check(found == b64decode(expected, validate=True), f"this is not entry {index} of the log")
print(f"entry {index} of {size} entries of {origin}")
