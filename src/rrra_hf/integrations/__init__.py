"""A retriever inside other tools: one module a tool, imported by whoever uses that tool.

`import rrra_hf` loads none of them. Each needs the extra of its name, such as
`pip install 'rrra-hf[langchain]'`; `sentence_transformers` and `vectors` need none.
"""
