"""[shell] The name servers of this host, as dnspython asks them."""

import dns.asyncresolver
import dns.resolver


def system_resolver() -> dns.asyncresolver.Resolver:
    """As /etc/resolv.conf says; one that knows no name server if there is none."""
    try:
        return dns.asyncresolver.Resolver()
    except (dns.resolver.NoResolverConfiguration, OSError):
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = []
        return resolver
