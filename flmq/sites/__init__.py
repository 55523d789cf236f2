"""Sites: the datacenters of one federation, each with a broker of its own, and their links.

A file, federation.toml, names them (`flmq.sites.reading` makes a `flmq.sites.federation.Federation`
of it). What each broker needs for it is data (`wanted`); the difference to what stands there is a
plan (`plan`), which the edge (`brokers`) reads and carries out through the management API.
"""
