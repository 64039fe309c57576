"""Addresses of clients, as they are counted."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def bare(text: str) -> Address | None:
    """The address, without its interface; None where it is none. A socket that listens on `::` names IPv4 clients
    `::ffff:192.0.2.1`: they are who they are by IPv4."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def network(text: str) -> str:
    """What one client may be taken to have: its address, of IPv6 the /64 around it, since whoever has one address of
    it has them all."""
    found = bare(text)
    if not isinstance(found, ipaddress.IPv6Address):
        return text if found is None else str(found)
    return str(ipaddress.ip_network((found, 64), strict=False))
