"""``python -m flmq``: the command line."""

from __future__ import annotations

from flmq.cli import main

if __name__ == "__main__":
    main()
