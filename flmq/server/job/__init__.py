"""A job and its phases as data: the job's identity, what a phase asks, and its result."""
