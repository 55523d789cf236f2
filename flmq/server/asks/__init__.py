"""Ask clients on behalf of a job, in phases or one at a time, and collect the results."""
