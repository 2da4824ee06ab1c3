"""Which requests the server answers: of its own host names, and no forms that other web sites send."""

import ipaddress
import re
import socket
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

ANY_ADDRESS = ("0.0.0.0", "::")
"""Addresses to listen on that stand for all of this machine."""


def host_name(netloc: str) -> str:
    """Host of a Host header or of a URL: lower case, without port, brackets and trailing dot.

    Empty where there is none.
    """
    try:
        return (urlsplit(f"//{netloc}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name is this machine: localhost, ::1, any address of 127.0.0.0/8 in any spelling."""
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return host == "localhost" if address is None else address.is_loopback


def accepts_host(netloc: str, hosts: Collection[str]) -> bool:
    """Whether a Host header names this server; another name may be one that an attacker has made lead here.

    Parameters
    ----------
    netloc
        Host header.
    hosts
        Names that are accepted beside the loopback ones. With 0.0.0.0 or :: these are all addresses, since
        only names can be made to lead elsewhere, and the names that the machine has itself.
    """
    host = host_name(netloc)
    accepted = {host_name(f"[{name}]" if name.count(":") > 1 and name[0] != "[" else name) for name in hosts}
    if is_loopback(host) or host in accepted:
        return True
    if not accepted & set(ANY_ADDRESS):
        return False
    return _address(host) is not None or host in (socket.gethostname().lower(), socket.getfqdn().lower())


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a page of another web site, by Origin and Sec-Fetch-Site.

    Programs send neither header.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return True
    if origin in (None, "null"):  # "null" comes with a same-origin request where a page hides its address
        return origin == "null" and site != "same-origin"
    return urlsplit(str(origin)).netloc.lower() != headers.get("host", "").lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host spells, also as 127.1 or 0x7f000001; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    if not re.fullmatch(r"[0-9a-fx.]+", host):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
