"""Collections: documents, queries and relevance judgements, checked on load."""
