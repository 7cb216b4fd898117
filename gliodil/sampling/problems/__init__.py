"""Problems with known solutions, one family per file."""
