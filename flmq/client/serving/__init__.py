"""How a worker serves its clients' queues: receiving, its threads, its jobs, its presence."""
