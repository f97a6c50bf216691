"""The settings of ``[data]``: the name of a dataset, and how its examples are converted to one shape."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sheaf.core.settings import settings

Positive = Annotated[int, Field(ge=1)]


@settings
class DataSettings:
    """The keys under ``[data]``.

    Attributes:
        name: a known dataset (``sheaf list data``); the path of a folder with parquet shards, or with one
            subfolder of images or sounds per class; a dataset of the Hugging Face Hub, ``hf:OWNER/NAME`` or
            ``hf:OWNER/NAME@REVISION``; or ``package.module:callable``, which takes no argument and returns
            a ``sheaf.Dataset``. A known set has precedence over a folder of the same name, which is written
            ``./mnist``.
        config: the configuration of a dataset of the Hub. Unset: the default one, or the only one.
        splits: the names of the training and the test split of a dataset of the Hub. Unset: ``train``, and
            ``test`` or ``validation``; without these, ``test_share`` of the training rows is the test split.
        labels: a CSV table with the labels of a folder's files, relative to the folder or to the working
            directory: a column of file names, one of labels, optionally one of splits. Unset: the only CSV
            file beside files that are in no class folders, with a note; otherwise the class folders.
        label: the column of labels. In parquet shards: integers from 0, or strings, which are classes in
            sorted order. Unset: ``label`` or, without that column, the only one of type ``ClassLabel``; in a
            CSV table, the first common name such as ``label`` or ``class``, or the only other column.
        input: the column of images or sounds in parquet shards: structs with a field ``bytes``, or bytes.
            Unset: the only such column. In a CSV table, the column of file names. Unset: the first one whose
            cells name files.
        size: images are resized to (rows, columns). Unset: all images must have the same size.
        channels: images are converted to grey (1) or colour (3). Unset: all must have the same number of
            channels.
        bits: images with more than 8 bits per channel are scaled from this number of bits, 8 to 32. Unset:
            from the bits of the largest value in the training and test images.
        rate: sounds are resampled to this rate, 2000 to 384000 Hz. Unset: all must have the same rate.
        seconds: sounds are cut, or padded with silence at the end, to this length, 0.1 to 60 s.
        skip_broken: whether files that cannot be read are left out before the split, with a note. Unset: they
            are an error.
        cache: whether decoded examples are stored in a cache on the disk, from which later runs map them into
            memory (see ``sheaf cache ls``). The folder is ``$SHEAF_CACHE``, by default ``~/.cache/sheaf``.
        limit: the maximum number of training examples: the first of each class in the order of the files, in
            numbers as equal as possible. At least the number of classes. Unset: all.
        limit_test: the same for the test examples.
        mean: of each channel, with images scaled to 0..1. Unset: the published values of a known set,
            otherwise those of the training examples.
        std: the standard deviation, above 0, likewise.
        test_share: the fraction of the files that form the test split of a folder without ``train/`` and
            ``test/``, above 0 and at most 1. A file's name alone decides, so adding files moves no other,
            except where a class of two or more files would have no training or no test file. 1 makes all
            files test files, for the cloud of a real fleet, which does not train on its own files.
        held_out: the fraction of each edge's training examples that it holds out and bases its decisions on,
            from 0 to below 1.
    """

    name: str
    config: str | None = None
    splits: tuple[str, str] | None = None
    labels: str | None = None
    label: str | None = None
    input: str | None = None
    size: tuple[Positive, Positive] | None = None
    channels: Literal[1, 3] | None = None
    bits: Annotated[int, Field(ge=8, le=32)] | None = None
    rate: Annotated[int, Field(ge=2000, le=384_000)] | None = None
    seconds: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    skip_broken: bool = False
    cache: bool = True
    limit: Positive | None = None
    limit_test: Positive | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    test_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
