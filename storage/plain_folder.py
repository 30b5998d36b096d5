"""A folder in which nothing but folders and files counts, however it came here: an archive may hold anything."""

from __future__ import annotations

import errno
import os
import stat

from .errors import DatasetError, StoreReadError, UnsafeObjectError
from .key import validate_key

KEPT_FOLDERS = 2**16
"""How many folders are remembered as looked at."""


class PlainFolder:
    """The folder `root`, which may itself be reached through symbolic links, and what lies below it, which may not.

    Notes
    -----
    A folder is looked at once. It is the dataset as it was unpacked that is not trusted: who can replace a folder by a
    link while it is read can do as they please anyway.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._looked_at: set[str] = {""}

    def __reduce__(self) -> tuple[type[PlainFolder], tuple[str]]:
        return type(self), (self.root,)  # what was looked at stays behind

    def locate(self, key: str) -> str:
        """Return the path of the object `key`, which need not be there.

        Raises
        ------
        UnsafeObjectError
            If `key` may lead elsewhere, or a symbolic link stands for a folder on its way.
        """
        validate_key(key)
        above = key.rpartition("/")[0]
        if above not in self._looked_at:
            self._look_at(above)
        return f"{self.root}/{key}"

    def validate_folder(self, prefix: str) -> None:
        """Check that no symbolic link stands for the folder `prefix` or one above it.

        Raises
        ------
        UnsafeObjectError
            If one does.
        """
        if prefix not in self._looked_at:
            validate_key(prefix)
            self._look_at(prefix)

    def _look_at(self, folder: str) -> None:
        parts = folder.split("/")
        if len(self._looked_at) >= KEPT_FOLDERS:
            self._looked_at = {""}
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path in self._looked_at:
                continue
            try:
                mode = os.lstat(f"{self.root}/{path}").st_mode
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError as error:
                raise self.fault(path, error) from error
            if stat.S_ISLNK(mode):
                raise self._refusal(path, "a symbolic link")
            if not stat.S_ISDIR(mode):
                return
            self._looked_at.add(path)

    def open_file(self, key: str) -> tuple[int, int] | None:
        """Return a descriptor of the file `key` and its size in bytes, None where there is none.

        Raises
        ------
        UnsafeObjectError
            If a symbolic link lies in the way, or something else than a file is there.
        StoreReadError
            If the disk refuses.
        """
        path = self.locate(key)
        try:  # who opens a pipe without a writer would wait for one
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.fault(key, error) from error
        seen = os.fstat(descriptor)
        if stat.S_ISREG(seen.st_mode):
            return descriptor, seen.st_size
        os.close(descriptor)
        if stat.S_ISDIR(seen.st_mode):
            return None
        raise self._refusal(key, "a pipe or a device")

    def has_file(self, key: str) -> bool:
        """Return whether `key` is a file; a symbolic link is none."""
        path = self.locate(key)
        try:
            return stat.S_ISREG(os.lstat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self.fault(key, error) from error

    def list_names(self, prefix: str) -> list[str]:
        """Return the names right below the folder `prefix`, symbolic links left out; none where it is not there."""
        self.validate_folder(prefix)
        try:
            with os.scandir(f"{self.root}/{prefix}") as entries:
                return [entry.name for entry in entries if not entry.is_symlink()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self.fault(prefix, error) from error

    def fault(self, key: str, error: OSError) -> DatasetError:
        """Return in one line what the disk said of `key`."""
        if error.errno == errno.ELOOP:
            return self._refusal(key, "a symbolic link")
        if error.errno == errno.ENXIO:
            return self._refusal(key, "a socket")
        return StoreReadError(
            f"{self.root}/{key}: expected a file that can be read, found: {error.strerror}; ask its owner, or look at "
            "the disk"
        )

    def _refusal(self, key: str, found: str) -> UnsafeObjectError:
        return UnsafeObjectError(
            f"{self.root}/{key}: expected a file or a folder of the dataset, found {found}; a dataset has none: if you "
            "trust where it leads, copy the dataset with `cp -rL` and open the copy"
        )
