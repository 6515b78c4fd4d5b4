"""Adapters of a retriever to other libraries, one module per library.

`import rrra_hf` doesn't import them. Each needs the extra of the same name, for example
`pip install 'rrra-hf[langchain]'`; `sentence_transformers` needs none.
"""
