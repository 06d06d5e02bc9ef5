"""What training and evaluation leave behind: where it lies, and how it is written and read."""
