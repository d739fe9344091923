"""State in the database and the data folder: keys, files, uploads, jobs, permissions, responses, batches."""
