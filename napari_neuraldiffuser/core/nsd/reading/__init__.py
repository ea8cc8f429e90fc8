"""Opens the files of scans: volumes, sessions of betas, the design, label tables; says what is wrong with them."""
