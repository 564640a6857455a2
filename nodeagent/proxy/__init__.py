"""The data plane: accepts, reads, balances, forwards. Runs in the workers and nowhere else."""
