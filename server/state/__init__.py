"""What survives a restart, in the database and the data folder: keys, files, jobs."""
