"""What a run will take, before it, and what it took, after: shapes, memory, time, storage. No torch."""
