"""What is written from the declarations: the reference, manual pages, completions. Not installed."""
