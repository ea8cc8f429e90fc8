"""What several benchmarks share: cases, clocks, tables of rows, runs in processes of their own, a virtual cluster."""
