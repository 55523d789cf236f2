"""Show a process to those who operate it: metrics for Prometheus, and answers to probes.

``serving`` opens a port for a role's `flmq.observe.vitals` and events; ``http`` answers there,
whoever asks. ``families`` names all metrics; ``run_metrics`` and ``worker_metrics`` count events,
and ``collector`` reads the rest when asked. Only what is used is imported: nothing here costs
anything where no port is wanted.
"""
