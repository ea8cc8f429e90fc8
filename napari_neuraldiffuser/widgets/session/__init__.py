"""What pages share: the session, its engine, and the parts that every panel is made of."""
