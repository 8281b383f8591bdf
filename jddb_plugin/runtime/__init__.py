"""What keeps a long training going: processes, checkpoints, signals, its place in the data, its speed."""
