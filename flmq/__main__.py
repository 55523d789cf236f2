"""``python -m flmq``: run the command line."""

from __future__ import annotations

from flmq.cli.main import main

if __name__ == "__main__":
    main()
