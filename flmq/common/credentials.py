"""How a process logs in at a broker: by password, by certificate, or by a token; read when needed.

A secret may stand in the URL, in the environment, in a file, or be printed by a command. Files and
commands are asked again at each connection, so that a rotated one is taken without a restart. A
token is an OAuth 2 access token, which goes where the password would
(https://www.rabbitmq.com/docs/oauth2); of a JSON Web Token (RFC 7519) we read user and time of
expiry, and nobody but the broker checks it.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Any

from flmq.common.cleaning import clean_text
from flmq.common.errors import BrokerAccessRefused, UsageError
from flmq.common.urls import BrokerUrl, InvalidBrokerUrl

__all__ = [
    "COMMAND_SECONDS",
    "LOGIN_OPTIONS",
    "AmbiguousLogin",
    "CredentialsUnavailable",
    "Login",
    "check_login",
    "login_of",
    "user_of",
]

COMMAND_SECONDS = 30.0
"""Seconds that a command has to print a secret."""
_LAST_WORDS = 1.0
"""Seconds for the complaints of a command that has ended: what it started may keep them open."""
_MAX_SECRET = 64 * 1024
_GUEST = "guest"
_ENVIRONMENT = "FLMQ_BROKER_"


class _Source(Enum):
    """Where a secret comes from; the value names the option of a URL."""

    PASSWORD = "password"  # noqa: S105  the name of an option
    PASSWORD_FILE = "password_file"  # noqa: S105
    PASSWORD_COMMAND = "password_command"  # noqa: S105
    TOKEN_FILE = "token_file"  # noqa: S105
    TOKEN_COMMAND = "token_command"  # noqa: S105
    EXTERNAL = "auth"

    @property
    def variable(self) -> str:
        """The environment variable that says the same for all URLs."""
        return f"{_ENVIRONMENT}{self.value.upper()}"

    @property
    def is_token(self) -> bool:
        return self in (_Source.TOKEN_FILE, _Source.TOKEN_COMMAND)


LOGIN_OPTIONS = tuple(each.value for each in _Source if each is not _Source.PASSWORD)
"""The options of a URL that say how to log in."""


class AmbiguousLogin(UsageError):
    """The environment names several logins."""

    def __init__(self, variables: list[str]) -> None:
        """Name the environment's ``variables``."""
        self.variables = variables
        super().__init__(
            f"{' and '.join(variables)} are set at once: unset all but one, for each says how to "
            "log in at the broker"
        )


class CredentialsUnavailable(BrokerAccessRefused):
    """The password, the token or the certificate for a broker cannot be had now."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a process shows to the broker."""

    user: str
    secret: str = field(repr=False)
    """The password or the token; empty with a certificate."""
    external: bool = False
    """By certificate: SASL's mechanism EXTERNAL."""
    expires: float | None = None
    """When a token expires, in seconds since the epoch; None: never, or it does not say."""


def check_login(url: BrokerUrl, environ: Mapping[str, str] | None = None) -> None:
    """Check that the URL and the environment say one way to log in; read nothing yet.

    Raises:
        InvalidBrokerUrl: the URL says several, none, or one that cannot work with the rest of it.
        AmbiguousLogin: the environment says several.
    """
    source, _ = _source(url, os.environ if environ is None else environ)
    options = dict(url.options)
    if len(options) < len(url.options):
        twice = sorted({name for name, _ in url.options if _count(url, name) > 1})
        raise InvalidBrokerUrl(url.full, f"option {twice[0]!r} is given twice")
    if source is not _Source.EXTERNAL:
        return
    if options["auth"] != "external":
        raise InvalidBrokerUrl(
            url.full, "option 'auth' knows one word, external: leave it out to log in otherwise"
        )
    if not url.tls:
        raise InvalidBrokerUrl(
            url.full, "auth=external logs in by a TLS certificate: it must begin with amqps://"
        )
    if "certfile" not in options:
        raise InvalidBrokerUrl(
            url.full,
            "auth=external needs the client's certificate: add certfile= and keyfile= "
            "(`flmq certs client` makes them)",
        )


def login_of(
    url: BrokerUrl,
    environ: Mapping[str, str] | None = None,
    *,
    run: Callable[[str], str] | None = None,
) -> Login:
    """Return the login for ``url``: what stands in it, or is to be read now. May block.

    A command has `COMMAND_SECONDS`. ``run`` runs it, and returns what it printed.

    Raises:
        InvalidBrokerUrl, AmbiguousLogin: as for `check_login`.
        CredentialsUnavailable: the file or the command gives no secret.
    """
    check_login(url, environ)
    source, value = _source(url, os.environ if environ is None else environ)
    if source is _Source.EXTERNAL:
        return Login(_certificate_user(url), "", external=True)
    if source is _Source.PASSWORD:
        return Login(url.user, value)
    what = "token" if source.is_token else "password"
    if source in (_Source.PASSWORD_FILE, _Source.TOKEN_FILE):
        secret = _from_file(Path(value), what)
    else:
        secret = _checked((run or _output_of)(value), f"the {what}'s command")
    if not source.is_token:
        return Login(url.user, secret)
    claims = _claims(secret)
    user = url.user if url.user != _GUEST else str(claims.get("sub") or _GUEST)
    return Login(user, secret, expires=_time(claims.get("exp")))


def user_of(url: BrokerUrl, environ: Mapping[str, str] | None = None) -> str:
    """Return the user whom the broker sees: the URL's, a certificate's, or a token's.

    It reads a secret only where it must, of a token whose URL names no user.

    Raises:
        as `login_of`.
    """
    source, _ = _source(url, os.environ if environ is None else environ)
    if source is _Source.EXTERNAL or (source.is_token and url.user == _GUEST):
        return login_of(url, environ).user
    return url.user


def _source(url: BrokerUrl, environ: Mapping[str, str]) -> tuple[_Source, str]:
    options = dict(url.options)
    written = url.password and (url.user, url.password) != (_GUEST, _GUEST)
    here = {each: options[each.value] for each in _Source if each.value in options}
    if _Source.PASSWORD in here:
        raise InvalidBrokerUrl(
            url.full, "a password stands before the host, user:password@host, or in a file"
        )
    if written:
        here[_Source.PASSWORD] = url.password
    if len(here) > 1:
        names = " and ".join(sorted(each.value for each in here))
        raise InvalidBrokerUrl(url.full, f"it says more than one way to log in: {names}")
    if here:
        return next(iter(here.items()))
    there = {
        each: environ[each.variable]
        for each in _Source
        if each is not _Source.EXTERNAL and environ.get(each.variable)
    }
    if len(there) > 1:
        raise AmbiguousLogin([each.variable for each in there])
    if there:
        return next(iter(there.items()))
    if url.user != _GUEST:
        raise InvalidBrokerUrl(
            url.full,
            f"user {url.user!r} has no password: set FLMQ_BROKER_PASSWORD, or add "
            "?password_file=, ?password_command=, ?token_file=, ?token_command= or "
            "?auth=external (docs/broker.md)",
        )
    return _Source.PASSWORD, _GUEST


def _count(url: BrokerUrl, name: str) -> int:
    return sum(name == each for each, _ in url.options)


def _from_file(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            read = file.read(_MAX_SECRET + 1)
        return _checked(read.decode("utf-8"), f"file {path}, which is to hold the {what},")
    except OSError as error:
        raise CredentialsUnavailable(
            f"the {what} for the broker cannot be read from {path} ({error.strerror})"
        ) from error
    except UnicodeDecodeError:
        # Without the cause: it quotes the secret.
        raise CredentialsUnavailable(f"file {path} holds no {what}: it is not UTF-8") from None


def _output_of(command: str) -> str:
    """Run ``command``, without a shell, and return what it printed."""
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise CredentialsUnavailable(
            f"the command for the broker's login cannot be split into words ({error})"
        ) from None
    if not argv:
        raise CredentialsUnavailable("the command for the broker's login is empty")
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise CredentialsUnavailable(
            f"the command for the broker's login, {argv[0]}, cannot be run ({error.strerror})"
        ) from error
    printed, complained = _Output(process.stdout), _Output(process.stderr, last=True)
    deadline = time.monotonic() + COMMAND_SECONDS
    try:
        ended = printed.is_read_within(COMMAND_SECONDS)
        if ended and not printed.too_long:
            process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        ended = False
    finally:
        process.kill()
        process.wait()
    if not ended:
        # Without a cause, here and below: it would quote what was printed, and all arguments.
        raise CredentialsUnavailable(
            f"the command for the broker's login, {argv[0]}, printed nothing within "
            f"{COMMAND_SECONDS:g} s"
        ) from None
    if process.returncode != 0 and not printed.too_long:
        complained.is_read_within(_LAST_WORDS)
        complaint = clean_text(complained.text.decode("utf-8", "replace")).strip().splitlines()
        last = f": {complaint[-1][:200]}" if complaint else ""
        raise CredentialsUnavailable(
            f"the command for the broker's login, {argv[0]}, failed with status "
            f"{process.returncode}{last}"
        )
    try:
        return printed.text.decode("utf-8")
    except UnicodeDecodeError:
        raise CredentialsUnavailable(
            f"the command for the broker's login, {argv[0]}, printed what is not UTF-8"
        ) from None


class _Output:
    """What a program prints, by a thread of its own: no more of it is kept than a secret has.

    That is the first of it, after which nothing is read, or with ``last`` the end of it all. What
    it started may keep the pipe open for ever, so nobody waits for its end without a bound.
    """

    def __init__(self, pipe: IO[bytes] | None, *, last: bool = False) -> None:
        self.text = b""
        read = self._read_all if last else self._read
        self._thread = threading.Thread(target=read, args=(pipe,), daemon=True)
        self._thread.start()

    def is_read_within(self, seconds: float) -> bool:
        """Wait for its end, or for too much; return whether it came within ``seconds``."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def too_long(self) -> bool:
        return len(self.text) > _MAX_SECRET

    def _read(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        with pipe:
            self.text = pipe.read(_MAX_SECRET + 1)

    def _read_all(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        with pipe:
            while part := pipe.read(4096):
                self.text = (self.text + part)[-_MAX_SECRET:]


def _checked(text: str, where: str) -> str:
    """Return a secret: one line, with or without its end."""
    secret = text.rstrip("\r\n")
    if not secret:
        raise CredentialsUnavailable(f"{where} is empty: it is to give one line")
    if "\n" in secret or "\0" in secret or len(secret) > _MAX_SECRET:
        raise CredentialsUnavailable(
            f"{where} gives more than one line, or more than {_MAX_SECRET} characters"
        )
    return secret


def _certificate_user(url: BrokerUrl) -> str:
    """Return the common name of the client's certificate, which the broker takes for the user."""
    path = dict(url.options)["certfile"]
    name = _common_name(path)
    if name is None and url.user == _GUEST:
        raise InvalidBrokerUrl(
            url.full, f"it names no user, and neither does {path}: write user@ before the host"
        )
    if name is not None and url.user not in (_GUEST, name):
        raise InvalidBrokerUrl(
            url.full,
            f"the certificate in {path} is that of {name!r}, not of {url.user!r}: name that user, "
            "or give that one's certificate",
        )
    return name or url.user


def _common_name(path: str) -> str | None:
    """Return the common name in a certificate's file; None if it has none, or we cannot tell."""
    decode: Any = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    if decode is None:
        return None
    try:
        subject = decode(path)["subject"]
    except OSError as error:
        raise CredentialsUnavailable(
            f"the client's certificate cannot be read from {path} "
            f"({error.strerror or 'it is no certificate in PEM'})"
        ) from error
    found = [value for part in subject for key, value in part if key == "commonName"]
    return found[0] if found else None


def _claims(token: str) -> dict[str, Any]:
    """Return the claims of a JSON Web Token, unchecked; none if it is another kind of token."""
    try:
        payload = token.split(".")[1]
        decoded = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _time(value: object) -> float | None:
    """Return a token's time of expiry; None if it has none that can be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        time.gmtime(value)
    except (ValueError, OverflowError, OSError):
        return None
    return float(value)
