"""Compression: how gradients are written on the wire; weights and optimizer state stay float32 on the shard."""

from psgd.transport.compression.codec import Codec, FeedbackCodec, is_finite
from psgd.transport.compression.part import PartEncoding
from psgd.transport.compression.residual import Residual
from psgd.transport.compression.spec import parse_wire

__all__ = ["Codec", "FeedbackCodec", "PartEncoding", "Residual", "is_finite", "parse_wire"]
