"""Everything that reads a group of the stream: the shard loop and what it feeds."""
