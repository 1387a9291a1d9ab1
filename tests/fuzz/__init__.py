"""A fuzzer: makes command lines and trees of image files by number, runs them, and checks what must hold for each."""
