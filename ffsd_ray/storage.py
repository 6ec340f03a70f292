"""Filesystems by location: a path, or the URI of an object store. Records and images are reached through here."""

import errno
import functools
import os
import re
import stat
import time
import urllib.parse
from collections.abc import Callable
from typing import TypeVar

from pyarrow import fs

from ffsd_ray.credentials import credentials_here, hidden, same_server, secret_in

#: Tries of a request to S3. The AWS SDK waits 50 ms after the first and twice as long after each further one, 51 s in
#: all; a server that takes a request and does not answer adds 3 s a try.
ATTEMPTS = 11

#: Seconds that Google's client and `patiently` go on trying.
PATIENCE = 60

#: Seconds between the first two tries of `patiently`, and between later ones at most.
_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

#: What a disk or a network share says that is away, or read-only, for a while.
_PASSING = {
    errno.EIO,
    errno.EROFS,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ENOTCONN,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EREMOTEIO,
}

T = TypeVar("T")

#: What pyarrow asks for, by the URI's scheme.
_PACKAGES = {"hf": "huggingface_hub", "abfs": "adlfs fsspec"}

#: The schemes of URIs. pyarrow knows more, by way of fsspec, some of which hand credentials to any host.
_SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hf", "hdfs", "viewfs")

#: What a URI of S3 may say after its "?": where a server is that is not Amazon's.
_QUERY = {"region", "scheme", "endpoint_override"}

#: A region becomes part of the host's name.
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")

#: Where the AWS SDK finds keys, other than from the machine that it runs on.
_AWS_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)

#: Microsoft's storage, in its clouds.
_AZURE_HOSTS = (".core.windows.net", ".core.chinacloudapi.cn", ".core.usgovcloudapi.net")


def is_uri(location: str) -> bool:
    return "://" in location


def open_location(location: str) -> tuple[fs.FileSystem, str]:
    """The filesystem that a path or a URI (s3://bucket/folder, gs://...) names, and the path on it.

    Credentials and, for an S3 server that is not Amazon's, AWS_ENDPOINT_URL come from the environment. A server that
    the URI alone names gets none. A request that fails as it may on a bad day is tried again for about a minute.

    Raises:
        ValueError: no filesystem is known for the URI, it holds credentials (the message does not), or it names a
            server that the environment's credentials are not for.
    """
    if not is_uri(location):
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(location))
    parts = urllib.parse.urlsplit(location)
    _refuse_secrets(parts)
    if parts.scheme not in _SCHEMES:
        raise ValueError(
            f"{shown(location)}: expected a path, or a URI such as s3://bucket/folder, not {parts.scheme}://"
        )
    anonymous = _names_a_stranger(parts)
    try:
        filesystem, root = _open_root(parts.scheme, parts.netloc, parts.query, anonymous, _client_environment())
    except Exception as error:  # whatever the filesystems' own packages raise
        raise ValueError(f"{shown(location)}: {_why_not(parts.scheme, error)}") from error
    path = f"{root.rstrip('/')}{urllib.parse.unquote(parts.path)}"
    return filesystem, path.rstrip("/") or "/"


def check_regular(path: str | os.PathLike[str]) -> None:
    """Do nothing where a path leads to a file with an end.

    Raises:
        OSError: there is none, or it is a device, a pipe or a folder, of which reading may never end.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a NUL in it
        raise FileNotFoundError(errno.ENOENT, str(error), path) from error
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file", path)


def patiently(act: Callable[[], T]) -> T:
    """Call `act`, again for about a minute while the filesystem fails in a way that may pass, and return its result.

    The clients of object stores go on trying by themselves (`open_location`), and their errors have no number.

    Raises:
        OSError: it still fails; or another try would only fail in the same way (a full disk, a missing right).
    """
    until, pause = time.monotonic() + PATIENCE, _PAUSE
    while True:
        try:
            return act()
        except OSError as error:
            if error.errno not in _PASSING or time.monotonic() > until:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def shown(location: str) -> str:
    """A location as messages give it: without what a URI says before its host and after its path."""
    if not is_uri(location):
        return location
    parts = urllib.parse.urlsplit(location)
    return hidden(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def _why_not(scheme: str, error: Exception) -> str:
    """Why no filesystem was made for a URI, and what to do."""
    if isinstance(error, ImportError):
        package = _PACKAGES.get(scheme)
        return f"{scheme}:// needs a package that is not installed ({error})" + (
            f": pip install {package}; or copy the files to a disk or to s3://, gs://" if package else ""
        )
    return f"expected a path, or a URI such as s3://bucket/folder or gs://bucket/folder: {error}"


def _refuse_secrets(parts: urllib.parse.SplitResult) -> None:
    query = urllib.parse.parse_qs(parts.query, keep_blank_values=True)
    place = shown(parts.geturl())
    if secret_in(parts.geturl()) is not None or "@" in str(query):
        raise ValueError(
            f"{place}: the URI holds credentials, which would end up in records and logs; expected them in the "
            "environment, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    allowed = _QUERY if parts.scheme == "s3" else set()
    if unknown := sorted(set(query) - allowed):
        expected = f"only {', '.join(sorted(allowed))}" if allowed else "nothing after a ?"
        raise ValueError(f"{place}: the URI sets {', '.join(unknown)}, expected {expected}")


def _names_a_stranger(parts: urllib.parse.SplitResult) -> bool:
    """Whether the URI itself says which server is asked, and it is not the one that the environment names.

    Raises:
        ValueError: it does, and would get credentials of the environment.
    """
    place = shown(parts.geturl())
    if parts.scheme.startswith("abfs"):
        _, at, host = parts.netloc.rpartition("@")
        if ("." in host or ":" in host or at) and not host.lower().endswith(_AZURE_HOSTS):
            raise ValueError(f"{place}: expected a host of Microsoft's storage, such as ACCOUNT.dfs.core.windows.net")
        return False
    if parts.scheme != "s3":
        return False
    query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    if not _REGION.fullmatch(query.get("region", "us-east-1")):
        raise ValueError(f"{place}: the URI's region is {query['region']!r}, expected one such as eu-central-1")
    scheme = query.get("scheme", "https")
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    asked = query.get("endpoint_override", named or "s3.amazonaws.com")
    if same_server(asked if "://" in asked else f"{scheme}://{asked}", named or "s3.amazonaws.com"):
        return False
    keys = ("~/.aws/credentials", "~/.aws/config")
    files = [os.environ.get("AWS_SHARED_CREDENTIALS_FILE", keys[0]), os.environ.get("AWS_CONFIG_FILE", keys[1])]
    if found := credentials_here(_AWS_VARIABLES, files):
        server = hidden(asked if "://" in asked else f"{scheme}://{asked}")
        raise ValueError(
            f"{place}: the URI names the server {server}, which is not known to be the one that the credentials here "
            f"({', '.join(found)}) are for. If it is, set AWS_ENDPOINT_URL={server} in the environment"
        )
    return True


def _client_environment() -> tuple[tuple[str, str], ...]:
    """The environment variables that object stores' clients read, when they are made."""
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith(("AWS_", "GOOGLE_"))))


@functools.cache  # a client of its own for every folder would connect, and sign in, anew
def _open_root(
    scheme: str, host: str, query: str, anonymous: bool, environment: tuple[tuple[str, str], ...]
) -> tuple[fs.FileSystem, str]:
    """`environment`: of this process; with another one there is another client."""
    if scheme in ("gs", "gcs"):
        query = f"retry_limit_seconds={PATIENCE}"
    filesystem, root = fs.FileSystem.from_uri(f"{scheme}://{host}{'/' if not host else ''}{query and '?' + query}")
    if filesystem.type_name == "s3":
        # What from_uri took from the URI and the environment, as it is pickled, and what a URI cannot say.
        _, (options,) = filesystem.__reduce__()
        options["retry_strategy"] = fs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS)
        if anonymous:
            options["anonymous"] = True  # not even the keys of the machine's role
        options["allow_delayed_open"] = True  # one request writes a small file, not three
        filesystem = fs.S3FileSystem(**options)
    return filesystem, root
