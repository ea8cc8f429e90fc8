"""What the Data page is made of: forms, regions and their expression, masks, sessions."""
