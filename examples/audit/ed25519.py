"""Ed25519 (RFC 8032), to check signatures with: Python's standard library has none.

Short to be read, not fast. Where the package `cryptography` is at hand, its `Ed25519PublicKey.from_public_bytes(public).verify(signature, message)` does
the same. What is secret is nowhere near it, so it need not hide how long it takes.
"""

import hashlib

# The field, the order of the group, and the constants of the curve.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D, ROOT = -121665 * pow(121666, -1, P) % P, pow(2, (P - 1) // 4, P)


def point(encoded):
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * ROOT % P
    if y >= P or x * x % P != square:
        raise ValueError("no point of the curve")
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
    if len(public) != 32 or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    base = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    return s < L and times(s, base) == add(point(signature[:32]), times(h, point(public)))
