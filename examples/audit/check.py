#!/usr/bin/env python3
"""Checks that an entry is in a log, with nothing of FTE: python3 check.py PROOF LEAF KEY

PROOF is a c2sp.org/tlog-proof file, LEAF the entry's bytes, KEY a file with the log's public key, `name+id+base64`.
It needs Python 3.9 and nothing else: hashing is the standard library's, Ed25519 (RFC 8032) is checked by the twenty lines below.
"""

import base64
import hashlib
import sys

# The field, the order of the group, and the constants of the curve.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D, ROOT = -121665 * pow(121666, -1, P) % P, pow(2, (P - 1) // 4, P)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def point(encoded):
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * ROOT % P
    if y >= P or x * x % P != square:
        sys.exit("no point of the curve")
    return (P - x if x % 2 != encoded[31] >> 7 else x, y)


def add(a, b):
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, -1, P) % P
    return (x, (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P) % P)


def times(number, a):
    result = (0, 1)
    while number:
        result = add(result, a) if number % 2 else result
        a, number = add(a, a), number // 2
    return result


def verifies(public, message, signature):
    """Whether s·B = R + h·A."""
    s = int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    base = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    return len(signature) == 64 and s < L and times(s, base) == add(point(signature[:32]), times(h, point(public)))


def open_note(note, key):
    """The text of a signed note, when a signature of the key is there and right."""
    name, key_id, typed = key.strip().split("+", 2)
    typed = base64.b64decode(typed, validate=True)
    if typed[0] != 1 or sha256(name.encode(), b"\n", typed)[:4].hex() != key_id:
        sys.exit("the key is none of a log, or was changed")
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    for line in signatures.splitlines():
        _, signer, signature = line.split(" ")
        signature = base64.b64decode(signature, validate=True)
        if signer == name and signature[:4].hex() == key_id:
            if not verifies(typed[1:], text.encode(), signature[4:]):
                sys.exit("the signature on the checkpoint is wrong")
            return name, text
    sys.exit("the log's key has not signed the checkpoint")


def root_of(leaf_hash, index, size, proof):
    """The root that the proof leads to, by RFC 9162, 2.1.3.2."""
    node, last, at = leaf_hash, size - 1, index
    for sibling in proof:
        if last == 0:
            sys.exit("the proof is too long")
        if at % 2 == 1 or at == last:
            node = sha256(b"\x01", sibling, node)
            while at % 2 == 0 and at != 0:
                at, last = at // 2, last // 2
        else:
            node = sha256(b"\x01", node, sibling)
        at, last = at // 2, last // 2
    if last != 0:
        sys.exit("the proof is too short")
    return node


def main(proof_path, leaf_path, key_path):
    with open(proof_path, encoding="utf-8") as file:
        head, note = file.read().split("\n\n", 1)
    lines = head.split("\n")
    if lines.pop(0) != "c2sp.org/tlog-proof@v1":
        sys.exit("no proof file")
    if lines[0].startswith("extra "):
        lines.pop(0)
    index = int(lines.pop(0).removeprefix("index "))
    proof = [base64.b64decode(line, validate=True) for line in lines]
    with open(key_path, encoding="utf-8") as file:
        name, text = open_note(note, file.read())
    origin, size, root, end = text.split("\n")
    if origin != name or end or not 0 <= index < int(size):
        sys.exit("the checkpoint is of another log, or the entry is not in it")
    with open(leaf_path, "rb") as file:
        leaf = file.read()
    if root_of(sha256(b"\x00", leaf), index, int(size), proof) != base64.b64decode(root, validate=True):
        sys.exit("this is not entry %d of the log" % index)
    print("entry %d of %s entries of %s" % (index, size, origin))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
