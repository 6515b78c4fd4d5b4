"""Which encoders a search by cosines is right for."""

from __future__ import annotations

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from ..models.modeling_rrra import RRRAModel


def check_similarity(encoder: SentenceTransformer) -> None:
    """Refuse an encoder whose similarity isn't the cosine, and would rank otherwise.

    Embeddings of length 1 are ranked the same by dot product and by Euclidean distance.

    Args:
        encoder: The encoder.

    Raises:
        ValueError: If its similarity is another, and its embeddings differ in length.

    Example:
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> encoder = SentenceTransformer(modules=[BoW(vocab=["copy", "file"])], similarity_fn_name="dot")
        >>> check_similarity(encoder)
        Traceback (most recent call last):
        ValueError: encoder must compare by cosine, ... by 'dot' ...
    """
    # An RRRAModel has refused what doesn't fit.
    checked = isinstance(getattr(encoder[0], "model", None), RRRAModel)
    unit = isinstance(encoder[-1], Normalize) and encoder.truncate_dim is None
    legal = ("cosine", "dot", "euclidean") if unit else ("cosine",)
    if checked or encoder.similarity_fn_name in legal:
        return
    lengths = "" if unit else " and its embeddings differ in length"
    raise ValueError(
        "encoder must compare by cosine, as indexes and adapters do, this one compares by "
        f"{str(encoder.similarity_fn_name)!r}{lengths}. To rank by cosine, set encoder.similarity_fn_name = "
        "'cosine', or that name in config_sentence_transformers.json."
    )
