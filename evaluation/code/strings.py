"""A string out of a pickle that holds nothing but one, without unpickling.

LiveCodeBench stores tests as base64(zlib(pickle(JSON text))). A pickle is a program: even an unpickler that refuses
every class can be made to allocate without bound. This reads the few opcodes that make a string and refuses the rest.
"""

import base64
import binascii
import zlib

MAX_BYTES = 1 << 30
"""Of tests once decompressed; the largest of LiveCodeBench are some hundred MB."""

_PROTO, _FRAME, _STOP = 0x80, 0x95, ord(".")
_LENGTH_BYTES = {0x8C: 1, ord("X"): 4, 0x8D: 8}  # SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
_NOTES = {0x94: 0, ord("q"): 1, ord("r"): 4}  # MEMOIZE, BINPUT, LONG_BINPUT, with the bytes of their argument


def packed_string(text: str, *, max_bytes: int = MAX_BYTES) -> str:
    """The string in base64(zlib(pickle(string))).

    Raises:
        ValueError: it is something else, or larger than `max_bytes`.
    """
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), max_bytes + 1)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"expected base64 of zlib data, got {error}") from None
    if len(data) > max_bytes:
        raise ValueError(f"expected at most {max_bytes} bytes of tests, got more")
    if not unpacker.eof:
        raise ValueError("expected whole zlib data, got part of it")
    return pickled_string(data)


def pickled_string(data: bytes) -> str:
    """The string in a pickle of protocol 2 or later.

    Raises:
        ValueError: the pickle holds anything else.
    """
    at, string = 0, None
    while at < len(data):
        code = data[at]
        at += 1
        if code == _STOP and string is not None and at == len(data):
            return string
        if code == _PROTO and at == 1:
            at += 1
        elif code == _FRAME and string is None:
            at += 8
        elif code in _LENGTH_BYTES and string is None:
            width = _LENGTH_BYTES[code]
            length = int.from_bytes(data[at : at + width], "little")
            at += width
            if length > len(data) - at:
                break
            string = data[at : at + length].decode("utf-8", "surrogatepass")
            at += length
        elif code in _NOTES and string is not None:
            at += _NOTES[code]
        else:
            raise ValueError(f"expected a pickle of one string, got opcode {code:#04x} at byte {at - 1}")
    raise ValueError("expected a pickle of one string, got one that ends early")
