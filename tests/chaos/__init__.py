"""Real processes killed and cut while they run a job: the same bits, whatever fails."""
