"""Models that answer people: chats, blanks, labels, scores, sources, and a look inside."""
