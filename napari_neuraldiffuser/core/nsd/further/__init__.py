"""NSD's further sessions as test sets of its subjects: NSD-synthetic and NSD-imagery (NSD data manual)."""
