"""The page on runs: a small web server that reads their folders, and what it shows."""
