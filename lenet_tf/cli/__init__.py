"""The programs. Flags are read here and nowhere else."""
