"""The passwords of users: made here, kept in a folder of files, one a user, and shown to nobody.

A file's name is the user's; its mode is 0600. A file that stands is kept: so running again changes
no password, and a person may put one there beforehand.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from flmq.common.errors import StoredDataError, UsageError
from flmq.common.files import create_private, make_folder, temporary_of
from flmq.common.locks import Timeout, process_lock

__all__ = ["FolderNotWritable", "Passwords", "PasswordsInUse", "password_hash", "writing"]

_SUFFIX = ".password"
_LOCK = ".lock"
_BYTES = 24
_SALT = 4


class PasswordsInUse(UsageError):
    """Another process provisions with the same folder of passwords."""

    def __init__(self, folder: Path) -> None:
        """Name the ``folder``."""
        self.folder = folder
        super().__init__(
            f"another `flmq provision` is at work with {folder}: wait until it is done, and run "
            "this again"
        )


class FolderNotWritable(UsageError):
    """A folder that provision is to write to cannot be written."""

    def __init__(self, folder: Path, error: OSError) -> None:
        """Name the ``folder`` and the system's ``error``."""
        self.folder = folder
        super().__init__(
            f"{folder}: cannot be written ({error.strerror or error}): see to space and "
            "permissions there, or name another folder; then run this again"
        )


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Convert OSErrors of writing ``folder`` to `FolderNotWritable`."""
    try:
        yield
    except OSError as error:
        raise FolderNotWritable(folder, error) from error


class Passwords:
    """The folder of passwords."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which need not exist yet."""
        self.folder = folder

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only process that uses the folder; create it.

        Raises:
            PasswordsInUse: another one does.
            FolderNotWritable: it cannot be created or written.
        """
        with writing(self.folder):
            make_folder(self.folder)
            lock = process_lock(self.folder / _LOCK)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                raise PasswordsInUse(self.folder) from None
        try:
            yield
        finally:
            lock.release()

    def file(self, user: str) -> Path:
        """Return the file of a user's password."""
        return self.folder / f"{user}{_SUFFIX}"

    def read(self, users: Collection[str]) -> dict[str, str]:
        """Return the passwords of those ``users`` who have one.

        Raises:
            StoredDataError: a file cannot be read, or is not one line.
        """
        found = {}
        for user in users:
            file = self.file(user)
            try:
                text = file.read_text(encoding="utf-8")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise StoredDataError(f"{file} cannot be read ({error})") from error
            # As a process that is given the file reads it: blanks are part of it.
            password = text.rstrip("\r\n")
            if not password or "\n" in password or "\0" in password:
                raise StoredDataError(
                    f"{file} must hold one line, the password: delete it, and a new one is made"
                )
            found[user] = password
        return found

    def made(self, users: Collection[str]) -> dict[str, str]:
        """Return new passwords for ``users``, which are not written yet."""
        return {user: secrets.token_urlsafe(_BYTES) for user in users}

    def write(self, passwords: Mapping[str, str]) -> None:
        """Write passwords, each file whole or not at all; where the disk is full, none of them.

        They survive the end of this process, and not a failure of power: then new ones are made.

        Raises:
            FolderNotWritable: no file was changed.
        """
        written: dict[Path, Path] = {}
        try:
            with writing(self.folder):
                make_folder(self.folder)
                for user, password in passwords.items():
                    temporary = temporary_of(self.file(user))
                    written[temporary] = self.file(user)
                    with create_private(temporary) as file:
                        file.write(f"{password}\n".encode())
                for temporary in list(written):
                    temporary.replace(written[temporary])
                    del written[temporary]
        finally:
            for temporary in written:
                temporary.unlink(missing_ok=True)

    def forget(self, users: Collection[str]) -> None:
        """Delete the files of users who are no more."""
        for user in users:
            self.file(user).unlink(missing_ok=True)


def password_hash(password: str) -> str:
    """Return what RabbitMQ keeps of a password: base64 of a salt, and SHA-256 of salt and password.

    The salt is made of the password, so that the same definitions are the same bytes. See
    https://www.rabbitmq.com/docs/passwords.
    """
    secret = password.encode()
    salt = hashlib.sha256(b"flmq provision" + secret).digest()[:_SALT]
    return base64.b64encode(salt + hashlib.sha256(salt + secret).digest()).decode()
