"""Users, passwords and keys: refused and hidden inside URIs, and kept from hosts that the environment does not name.

What stands before an @ alone need not be a secret: abfs://container@account names a container.

A job file, or a run's records, may come from a stranger, and so may the address of a server in it. The environment is
the user's own: its credentials go to the server that it names beside them.
"""

import os
import re
from collections.abc import Iterable, Sequence

#: Bounded, so that no text takes long.
_IN_URI = re.compile(
    r"""\b(?:s3|gs)://(?P<pair>[^/?\#\s"'@:]{0,200}:[^\s"'@]{1,200})(?=@)    # a bucket has no colon, a key may have a /
        |(?:\b(?:s3|gs|https?)://                              # users are all that these have before an @
        |://(?=[^/?\#\s"'@:]{0,200}:[^/?\#\s"'@]{0,200}@))    # user:password
        (?P<before>[^/?\#\s"'@]{1,400})(?=@)
        |[?&][\w.-]{0,40}(?:key|secret|token|password|signature)[\w.-]{0,20}=(?P<value>[^&\s"']+)""",
    re.IGNORECASE | re.VERBOSE,
)


def secret_in(text: str) -> int | None:
    """Where a URI in `text` holds a secret; None where none does."""
    match = _IN_URI.search(text)
    return match.start(match.lastgroup or 0) if match else None


def hidden(text: str) -> str:
    """`text` with `***` in place of what its URIs say of users, passwords and keys."""
    return _IN_URI.sub(lambda match: match.group().removesuffix(match[match.lastgroup or 0]) + "***", text)


#: Strict, because clients read odd addresses in different ways: what does not match is nobody's.
_ADDRESS = re.compile(
    r"(?:([a-z][a-z0-9+.-]*)://)?([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?(?:[/?#][^\\@\s]*)?", re.IGNORECASE
)
_PORTS = {"http": 80, "https": 443}


def same_server(address: str, named: str | None, scheme: str = "https") -> bool:
    """Whether `named` has the scheme, the host and the port of `address`; `scheme`: of one that says none."""
    servers = []
    for each in (address, named or ""):
        match = _ADDRESS.fullmatch(each)
        if match is None:
            return False
        protocol = (match[1] or scheme).lower()
        servers.append((protocol, match[2].lower().rstrip("."), int(match[3] or _PORTS.get(protocol, 0))))
    return servers[0] == servers[1]


def credentials_here(variables: Iterable[str], files: Sequence[str] = ()) -> list[str]:
    """Those of the environment variables that are set, and of the files that exist."""
    named = [name for name in variables if os.environ.get(name)]
    return named + [file for file in files if os.path.exists(os.path.expanduser(file))]
