"""Several real brokers, each a site, with links between them that are cut, slowed and measured."""
