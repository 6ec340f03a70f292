"""Users, passwords and keys inside URIs: found, so that they are refused, and hidden where a message has them.

What stands before an @ alone need not be a secret: abfs://container@account names a container.
"""

import re

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
