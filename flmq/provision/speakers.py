"""Who speaks for whom on a virtual host, by the federation's file: what a server needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flmq.provision.parties import Provision, Tenant
from flmq.provision.reading import read_provision
from flmq.wire import aggregator_name

__all__ = ["speakers_of"]


def speakers_of(
    file: Path,
    vhost: str,
    environ: Mapping[str, str] | None = None,
    *,
    site: str | None = None,
) -> Mapping[str, frozenset[str]]:
    """Return the client ids, and ``!<site>`` of aggregators, for which each user speaks.

    Empty where the file says nothing of the virtual host, that of ``site``'s broker (None: the
    hub's); ``environ`` is as in `read_provision`.

    Raises:
        InvalidFederation: the file cannot be read, or contradicts itself.
    """
    tenant = _tenant(read_provision(file, environ), vhost, site)
    if tenant is None:
        return {}
    speakers = dict(tenant.speakers)
    for user, site in tenant.aggregators.items():
        speakers[user] = speakers.get(user, frozenset()) | {aggregator_name(site)}
    return speakers


def _tenant(provision: Provision, vhost: str, site: str | None) -> Tenant | None:
    if site is None:
        return provision.at_vhost(vhost)
    return next(
        (
            tenant
            for tenant in provision
            if any(each.name == site and each.vhost == vhost for each in tenant.federation)
        ),
        None,
    )
