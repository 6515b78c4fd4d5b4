"""The Gradio page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..retrieval import Retriever
from ..retrieval.corpus_index import CorpusIndex
from .comparison import MAX_QUERY_LENGTH, compare
from .examples import phrases
from .page import CSS, comparison_html, problem_html

try:
    import gradio as gr
    from starlette.middleware import Middleware

    from .requests import ShortJsonOnly
except ImportError as error:
    raise ImportError("This module needs Gradio: pip install 'rrra-hf[app]'") from error

# A font that ships with Gradio. Its semi-bold files lack most letters, so bold is used instead.
FONT = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))
THEME = gr.themes.Default(primary_hue="indigo", font=[FONT, "system-ui", "sans-serif"])
MAX_TOP_K = 50
WITH_ADAPTER = (
    "The percentage is the probability that a document is relevant. The order comes from a score that was "
    "learnt for the order alone, so a less probable document can rank higher."
)
# Searches that wait, one runs. Gradio tells others that the queue is full.
MAX_WAITING = 32


class Page(gr.Blocks):
    """Blocks that take no files from browsers, however they are launched."""

    def launch(self, *arguments: Any, **options: Any) -> Any:
        """Serve the page, with the options of `gr.Blocks.launch`."""
        given = dict(options.pop("app_kwargs", None) or {})
        given["middleware"] = [*given.get("middleware", ()), Middleware(ShortJsonOnly)]
        return super().launch(*arguments, app_kwargs=given, **options)


def create_demo(
    retriever: Retriever, title: str = "Search with and without the adapter", examples: Sequence[str] = ()
) -> gr.Blocks:
    """Create a page that shows search results with and without the adapter, side by side.

    For each document, it shows the probability of relevance and how the adapter changed its rank. Serve the
    page with `launch(theme=THEME)`. It takes no files, collects no analytics and loads nothing from other
    servers.

    Args:
        retriever: A retriever with an index.
        title: Heading of the page.
        examples: Example queries. By default, sentences from some documents; none if these are in Milvus.

    Raises:
        ValueError: If the retriever has no index.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file", "sort", "list"])])
        >>> retriever = Retriever(encoder).index({"cp": "copy a file", "sorted": "sort a list"})
        >>> demo = create_demo(retriever)  # demo.launch(theme=THEME)
    """
    corpus = retriever.corpus
    what = "documents"
    if isinstance(corpus, CorpusIndex):
        what = what if corpus.split is None else "passages of documents"
        examples = examples or phrases(corpus.documents)
    about = f"{len(corpus):,} {what}."
    if retriever.adapter is not None:
        about += f" {WITH_ADAPTER}"

    def search(query: str | None, top_k: int) -> str:
        try:
            return comparison_html(compare(retriever, query or "", top_k))
        except ValueError as error:
            return problem_html(str(error))

    with Page(title=title, analytics_enabled=False) as demo:
        gr.Markdown(f"# {title}\n{about}")
        with gr.Row():
            query = gr.Textbox(
                label="Query",
                placeholder="Ask in your own words",
                max_length=MAX_QUERY_LENGTH,
                autofocus=True,
                submit_btn="Search",
                scale=4,
                min_width=280,
            )
            top_k = gr.Slider(
                1, MAX_TOP_K, value=10, step=1, label="Documents", buttons=[], scale=1, min_width=200
            )
        samples = gr.Examples([[example] for example in examples], [query]) if examples else None
        results = gr.HTML(css_template=CSS, js_on_load=None)
        # Tokenizers are not thread-safe, so all searches go through one queue, one at a time.
        one_by_one = {"concurrency_limit": 1, "concurrency_id": "search"}
        io = {"inputs": [query, top_k], "outputs": results}
        gr.on([query.submit, top_k.release], search, **io, **one_by_one, api_name="search")
        if samples is not None:
            samples.load_input_event.success(search, **io, **one_by_one, api_visibility="private")
    return demo.queue(max_size=MAX_WAITING, api_open=False)
