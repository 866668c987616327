"""The codecs by name."""

import difflib

import torch

from psgd.errors import ConfigurationError
from psgd.transport.compression.blocks import Int8, OneBit
from psgd.transport.compression.cast import Float32, Half
from psgd.transport.compression.codec import Codec
from psgd.transport.compression.topk import TopK

_CODECS: dict[str, Codec] = {
    codec.name: codec for codec in (Float32(), Half(torch.bfloat16), Half(torch.float16), Int8(), OneBit())
}


def parse_wire(spec: str) -> Codec:
    """The codec of a name.

    Args:
        spec: ``float32``, ``bfloat16``, ``float16``, ``int8``, ``onebit``, or ``topk:`` and the fraction to send.

    Raises:
        ConfigurationError: if there is none of that name, or the fraction is not in (0, 1].

    >>> parse_wire("topk:0.01")
    TopK(fraction=0.01)
    """
    if spec in _CODECS:
        return _CODECS[spec]
    word, _, argument = spec.partition(":")
    if word == "topk":
        try:
            return TopK(float(argument))
        except ValueError:
            raise ConfigurationError(
                f"wire topk needs the fraction of values to send, such as topk:0.01, got {spec!r}"
            ) from None
    close = difflib.get_close_matches(word, [*_CODECS, "topk:0.01"], n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ConfigurationError(f"wire must be {', '.join(_CODECS)} or topk:FRACTION, got {spec!r}{hint}")
