"""Models that a worker reads: from the stream of models or sent to it alone, and cached."""
