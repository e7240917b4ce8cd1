"""Addresses that a job may not name: a cloud's metadata service gives out the node's credentials to whoever can ask it.

The text of a URL is all that is looked at. A name that resolves to such an address gets past it, and past it only: that is
what the NetworkPolicies of the chart are for.
"""

from __future__ import annotations

import re

URL_PATTERN = r"^https?://[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9.:_/~%-]*)?$"
"""http and https only, with neither user and password nor a query, and no address of IPv6."""
METADATA_MESSAGE = (
    "names a link-local address or a cloud's metadata service, or an address that is not written as four decimal numbers; "
    "name the server by its DNS name"
)

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_SCHEME = "^(https?|oci)://"
# 2852039166, 0xa9fea9fe and 0251.0376.0251.0376 are 169.254.169.254 to most programs. No top-level domain begins with a digit.
_NUMERIC = f"{_SCHEME}([^/:@]*[.])?[0-9][^./:@]*([:/@]|$)"
_DOTTED_QUAD = f"{_SCHEME}({_OCTET}[.]){{3}}{_OCTET}([:/@]|$)"
_METADATA = (
    f"(?i){_SCHEME}(169[.]254[.]|100[.]100[.]100[.]200([:/@]|$)|168[.]63[.]129[.]16([:/@]|$)"
    "|(metadata([.]google[.]internal)?|instance-data([.]ec2[.]internal)?)([:/@]|$))"
)


def address_cel(uri: str) -> str:
    """The CEL expression that holds where the URI, itself a CEL expression, names no such address."""
    return f"!{uri}.matches('{_METADATA}') && (!{uri}.matches('{_NUMERIC}') || {uri}.matches('{_DOTTED_QUAD}'))"


def is_allowed_address(uri: str) -> bool:
    """The same in Python. URIs of other schemes than http, https and oci are no addresses."""
    if re.search(_METADATA, uri):
        return False
    return re.search(_NUMERIC, uri) is None or re.search(_DOTTED_QUAD, uri) is not None
