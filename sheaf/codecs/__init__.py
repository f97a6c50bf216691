"""Codecs: one file each, named as ``fleet.upload = "NAME"`` or ``fleet.download = { name = "NAME", … }``.

A codec is a ``@settings`` class with ``layout``, ``encode`` and ``decode``; see ``core/coding.py``. It
encodes one matrix at a time: a float32 parameter of two or more dimensions, usually as the difference to the
model that the receiver holds. Vectors, buffers and integers are sent exactly, whatever the codec
(``runtime/coded_params.py``).
"""
