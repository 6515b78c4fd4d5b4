"""Mining the documents that a retriever ranks high for each training query."""
