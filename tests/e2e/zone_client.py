"""A resolver that has a zone and looks whether there is a newer one."""

from __future__ import annotations

import dns.exception
import dns.message
import dns.query
import dns.rrset


def has_looked(port: int, zone: str) -> bool:
    """Look once, as who has the present version; whether the node answered."""
    asked = dns.message.make_query(zone, "SOA")
    try:
        found = dns.query.udp(asked, "127.0.0.1", timeout=1, port=port).answer
        if not found:
            return False
        asked = dns.message.make_query(zone, "IXFR")
        asked.authority = [dns.rrset.from_rdata(zone, 60, found[0][0])]
        dns.query.udp(asked, "127.0.0.1", timeout=1, port=port)
    except (OSError, dns.exception.DNSException):
        return False
    return True
