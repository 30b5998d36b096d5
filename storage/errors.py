"""What can go wrong with a dataset. Every message says where, what was expected, what was found, and the remedy."""

from __future__ import annotations

from .printable import make_printable


class DatasetError(Exception):
    """Any fault of a dataset, a run or a block; its text is one printable line, whatever a dataset's names hold."""

    def __str__(self) -> str:
        return make_printable(super().__str__())


class DatasetNotFoundError(DatasetError):
    """There is no dataset at a URL."""


class RunNotFoundError(DatasetError):
    """A dataset holds no run of that name."""


class RunExistsError(DatasetError):
    """A run of that name exists already."""


class RunMismatchError(DatasetError):
    """A run exists already, made by other settings."""


class RunIncompleteError(DatasetError):
    """Some planned blocks of a run are not committed yet."""


class BlockMisalignedError(DatasetError):
    """A block is not one of the run's planned blocks."""


class BlockValuesError(DatasetError):
    """The values handed over for a block do not fit the run's plan, or cannot be stored exactly."""


class CreateOnlyError(DatasetError):
    """Something tried to replace or delete an object that is only ever created."""


class BlockDamagedError(DatasetError):
    """An object of a committed block is gone, or is not what was written."""


class DatasetDamagedError(DatasetError):
    """A validation found damage; the message lists it."""


class ReadOnlyError(DatasetError):
    """A dataset on a web server can only be read, and not be listed."""


class StoreUnreachableError(DatasetError):
    """A server did not answer, or not as it must."""


class UnsafeObjectError(DatasetError):
    """What an object's name leads to is not a file of the dataset: a symbolic link, a device, something outside."""


class DocumentError(DatasetError):
    """A metadata document that is not as the format says, or asks for more than a reader grants."""


class ArraySizeError(DocumentError):
    """An array whose document asks for more memory or time than a reader grants."""


class ObjectSizeError(DatasetError):
    """An object is larger than what it is taken for can be."""


class StoreReadError(DatasetError):
    """A disk refused to read."""


class StoreWriteError(DatasetError):
    """A disk refused to write: it is full, or its owner does not allow it."""


class ExchangeError(DatasetError):
    """Arrays that do not make a run, or columns and a file that a run cannot be exported to."""
