"""One batch: from records and what runs do by themselves to the rows of one commit."""
