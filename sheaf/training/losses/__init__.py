"""Losses: one file each, named in a recipe as ``loss = "NAME"`` or ``loss = { name = "NAME", … }``.

A loss is a ``@settings`` class with ``__call__(logits, labels, context) -> Tensor``:

- ``logits``: (B, K) of one site's mini-batch,
- ``labels``: (B,) int64; examples labelled -100 only fill up the batch and must not count,
- ``context``: a ``LossContext`` (``training/step.py``); the class lists the fields that it uses in ``needs``,
- the result: a number with gradients, the mean over the examples that count.

A loss may have another one as its field ``loss``, to which it adds a term. It may have a method
``effective(params, context)`` that returns other parameters for the forward pass, such as a part of the
network.

It consists of tensor operations on these and draws no random numbers; ``context.draw`` is drawn for each
step. Then the same file serves every way of training: sites one by one, on threads, vectorized over many
sites, and recorded as a graph.
"""
