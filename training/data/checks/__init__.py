"""What a file is looked at for, one check a class: each sees every row once."""
