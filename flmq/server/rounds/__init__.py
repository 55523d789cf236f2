"""The parts of a round: its phases, and where the first model comes from."""
