"""TFRecord files whose records are read by index.

    records = Records("digits-*.tfrecord", features)
    len(records)                      # number of records in all files
    records.serialized([7, 2])        # two records, read where they lie in their files
    records[7]                        # {"image": ...}, record 7 parsed and decoded

A TFRecord file has no table of contents, but each record has its length before it. The
files are gone through once, from length to length, without reading the records.
Compressed files cannot be read in this way.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import glob
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from lenet_tf.data.crc32c import crc32c, masked
from lenet_tf.errors import DataError, UsageError

Files: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Features: TypeAlias = Mapping[str, object]  # as tf.io.parse_example takes them
Example: TypeAlias = Mapping[str, tf.Tensor]
Decode: TypeAlias = Callable[[dict[str, tf.Tensor]], Example]

RECORD = "record"  # name of the entry if there are no features
_HEADER = struct.Struct("<QI")  # length and its checksum, before each record
_FOOTER = struct.Struct("<I")  # checksum of the record, after it
_LOOKED_AT = 100  # records whose features are compared with those asked for
_THREADS = 8  # a disk has several reads in hand at once


class Records:
    """Examples of TFRecord files, each read when it is needed.

    Args:
      files: Path, pattern such as "train-*.tfrecord", or paths. The records are in the
        order of the files, and the files of a pattern in that of their names.
      features: Features of a `tf.train.Example`, as `tf.io.parse_example` takes them,
        each with a shape: `tf.io.FixedLenFeature`. None for records of another kind:
        an example is then `{"record": string}`.
      decode: Function of a parsed record, a dict of tensors, that returns the example
        to use. It consists of TensorFlow operations and is traced into a graph. Images
        need it: `tf.io.decode_jpeg`, then `tf.image.resize` or `tf.ensure_shape`.

    Raises:
      DataError: No file matches, or one cannot be read, is not a TFRecord file, is
        damaged, or is compressed.
      UsageError: A feature gives sparse tensors, or is in none of the first records.
    """

    def __init__(
        self,
        files: Files,
        features: Features | None = None,
        decode: Decode | None = None,
    ) -> None:
        self.files: list[str] = _paths(files)
        self._features = _checked(features)
        self.decode = decode
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            places = list(pool.map(_places, self.files))
        counts = [len(begins) for begins, _ in places]
        self._file = np.repeat(np.arange(len(places)), counts)
        self._begin = np.concatenate([begins for begins, _ in places])
        self._length = np.concatenate([lengths for _, lengths in places])
        self._checked = np.zeros(len(self._begin), bool)
        self._check_names()

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self._begin)

    def __getitem__(self, index: int) -> Example:
        """Returns one example, parsed and decoded.

        Raises:
          DataError: The record cannot be read, or is damaged.
          tf.errors.OpError: It cannot be parsed or decoded.
        """
        parsed = self.parse(tf.constant(self.serialized([index])))
        example = {name: values[0] for name, values in parsed.items()}
        return example if self.decode is None else self.decode(example)

    @property
    def fixed_size(self) -> bool:
        """Whether each feature has one shape in all records, before `decode`."""
        features = (self._features or {}).values()
        return all(isinstance(feature, tf.io.FixedLenFeature) for feature in features)

    @property
    def ragged(self) -> set[str]:
        """Names of the features whose length differs between records."""
        features = (self._features or {}).items()
        return {
            k for k, feature in features if isinstance(feature, tf.io.RaggedFeature)
        }

    def part(self, start: int, stop: int) -> Records:
        """Returns the records from `start` up to `stop`, as for a held-out part.

        Raises:
          UsageError: There are no such records.
        """
        if not 0 <= start <= stop <= len(self):
            raise UsageError(
                f"part is {start} to {stop}: it must lie within 0 and {len(self)}, the "
                "number of records"
            )
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        for name in ("_file", "_begin", "_length", "_checked"):
            setattr(part, name, getattr(self, name)[start:stop])
        return part

    def parse(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the features of records [N], before `decode`: name -> [N, ...]."""
        if self._features is None:
            return {RECORD: serialized}
        parsed: dict[str, tf.Tensor] = tf.io.parse_example(serialized, self._features)
        return parsed

    def serialized(self, index: Sequence[int] | np.ndarray) -> np.ndarray:
        """Reads records; a record's checksum is compared when it is first read.

        Args:
          index: Numbers of the records, from 0, [N].

        Returns:
          The records as bytes, object [N].

        Raises:
          DataError: A file cannot be read, or a record is damaged.
        """
        numbers = np.asarray(index, np.int64)
        records = np.empty(len(numbers), object)
        order = np.lexsort([self._begin[numbers], self._file[numbers]])
        changes = np.flatnonzero(np.diff(self._file[numbers[order]])) + 1
        for places in np.split(order, changes):
            if len(places):
                self._read_from_file(numbers[places], places, records)
        new = np.flatnonzero(~self._checked[numbers])
        if len(new):
            self._check(numbers[new], records[new])
        records[:] = [record[: -_FOOTER.size] for record in records]
        return records

    def _check_names(self) -> None:
        """Refuses a feature that none of the first records has.

        TensorFlow takes a ragged feature that is missing for an empty one.
        """
        if self._features is None:
            return
        names: set[str] = set()
        for record in self.serialized(range(min(_LOOKED_AT, len(self)))):
            with contextlib.suppress(Exception):  # told when the record is read
                names |= set(tf.train.Example.FromString(record).features.feature)
        for name, feature in self._features.items():
            optional = getattr(feature, "default_value", None) is not None
            if names and name not in names and not optional:
                raise UsageError(
                    f"feature {name!r} is in none of the first records, which have "
                    f"{', '.join(sorted(names))}: correct the name, or write the "
                    "feature into them, empty if need be"
                )

    def _read_from_file(
        self, numbers: np.ndarray, places: np.ndarray, records: np.ndarray
    ) -> None:
        """Reads records of one file, with their checksums, into given places."""
        path = self.files[self._file[numbers[0]]]
        begins = self._begin[numbers].tolist()
        sizes = (self._length[numbers] + _FOOTER.size).tolist()
        try:
            with open(path, "rb", buffering=0) as file:
                descriptor = file.fileno()
                for place, size, begin in zip(places, sizes, begins, strict=True):
                    records[place] = os.pread(descriptor, size, begin)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error

    def _check(self, numbers: np.ndarray, records: np.ndarray) -> None:
        """Compares records with the checksums that follow them."""
        stored = [record[-_FOOTER.size :].rjust(_FOOTER.size) for record in records]
        right = masked(crc32c([record[: -_FOOTER.size] for record in records]))
        bad = right != np.frombuffer(b"".join(stored), "<u4")
        if bad.any():
            number = numbers[np.argmax(bad)]
            path, begin = self.files[self._file[number]], self._begin[number]
            raise DataError(
                f"record {number} is damaged, at byte {begin} of {path}: "
                "write the file again"
            )
        self._checked[numbers] = True


def _checked(features: Features | None) -> dict[str, object] | None:
    """Returns the features, if they make dense or ragged tensors."""
    if features is None:
        return None
    if not isinstance(features, Mapping):
        raise UsageError(
            f"features is {features!r}: give a dict, as in "
            '{"label": tf.io.FixedLenFeature([], tf.int64)}'
        )
    for name, feature in features.items():
        if isinstance(feature, tf.io.VarLenFeature | tf.io.SparseFeature):
            raise UsageError(
                f"feature {name!r} is a {type(feature).__name__}, which gives sparse "
                "tensors: use tf.io.RaggedFeature(dtype), and Batches(buckets=...)"
            )
    return dict(features)


def _paths(files: Files) -> list[str]:
    if isinstance(files, str | os.PathLike):
        path = os.fspath(files)
        if os.path.isdir(path):
            raise DataError(f"{path} is a folder: give a pattern, as {path}/*.tfrecord")
        paths = [path] if os.path.exists(path) else sorted(glob.glob(path))
        if not paths:
            raise DataError(f"no file matches {path}: give the path of TFRecord files")
        return paths
    paths = [os.fspath(file) for file in files]
    if not paths:
        raise DataError("there are no files: give the paths of TFRecord files")
    return paths


def _places(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the records of a file begin, and their lengths, int64 [N] each."""
    headers, begins = [], []
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            end = 0
            while end + _HEADER.size <= size:
                file.seek(end)
                headers.append(file.read(_HEADER.size))
                begins.append(end + _HEADER.size)
                end = begins[-1] + _HEADER.unpack(headers[-1])[0] + _FOOTER.size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    stored = np.frombuffer(b"".join(headers), [("length", "<u8"), ("crc", "<u4")])
    right = masked(crc32c([header[:8] for header in headers]))
    wrong = np.flatnonzero(right != stored["crc"])
    if len(wrong) and wrong[0] == 0:
        raise DataError(
            f"{path} is not a TFRecord file, or is compressed: give an uncompressed "
            "one, or a dataset, as tf.data.TFRecordDataset(path, compression_type=...)"
        )
    if len(wrong) or end != size:
        place = begins[wrong[0]] if len(wrong) else begins[-1] if end > size else end
        raise DataError(
            f"{path} is damaged or cut off at byte {place}: write the file again"
        )
    return np.array(begins, np.int64), stored["length"].astype(np.int64)
