"""`/v1/fine_tuning`: jobs, their events, checkpoints and reports; graders; checkpoint permissions."""
