"""The parts of a round: its phases, and the source of the initial model."""
