"""Everything that appends events to the stream."""
