"""Many runs by one command: their names, what is left to do, and the processes in which they run."""
