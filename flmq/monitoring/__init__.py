"""Show a process to those who operate it: metrics for Prometheus, answers to probes, spans.

``serving`` opens a port for a role's `flmq.observe.vitals` and events; ``http`` answers there,
whoever asks. ``families`` names metrics; ``run_metrics`` and ``worker_metrics`` count events, and
``collector`` reads the rest when asked. ``tracing`` makes spans of events for OpenTelemetry, which
``exporting`` sends. Only what is used is imported: nothing here costs anything where nothing is
wanted.
"""
