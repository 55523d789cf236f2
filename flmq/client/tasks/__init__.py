"""Tasks of a worker: kept, executed, counted where they kill, settled by receipts."""
