"""Schemas of requests and responses; they are also the documentation at `/docs`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    model_validator,
)
from typing_extensions import Self

from ..candidates import DEPTH


class Bounds(NamedTuple):
    """Bounds of lists and texts, which the schemas read from the context of a validation.

    Args:
        queries: Maximum number of queries.
        documents: Maximum number of documents to rank, or of texts to encode.
        text_length: Maximum number of characters of a text.
        dim: Dimension of the query embeddings.
    """

    queries: int
    documents: int
    text_length: int
    dim: int


def _check_text(text: str, info: ValidationInfo[Bounds | None]) -> str:
    if info.context is not None:
        _check_at_most(len(text), info.context.text_length, "characters")
    if not text.strip():
        raise ValueError("must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON can hold unpaired surrogates, which tokenizers don't accept.
        raise ValueError(
            f"must be valid Unicode, got an unpaired surrogate at position {error.start}"
        ) from error
    return text


# Lists are counted before their entries are validated, and the first bad entry ends the validation of a list.
def _count(bound: Literal["queries", "documents"], unit: str) -> BeforeValidator:
    """Return a validator that counts the entries of a list."""

    def check(value: Any, info: ValidationInfo[Bounds | None]) -> Any:
        if isinstance(value, list) and info.context is not None:
            _check_at_most(len(value), getattr(info.context, bound), unit)
        return value

    return BeforeValidator(check)


def _check_dim(value: Any, info: ValidationInfo[Bounds | None]) -> Any:
    if isinstance(value, list) and info.context is not None and len(value) != info.context.dim:
        raise ValueError(f"must have dimension {info.context.dim}, got {len(value)}")
    return value


def _check_at_most(count: int, most: int, unit: str) -> None:
    if count > most:
        raise ValueError(f"must be at most {most} {unit}, got {count}")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _text_of(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() != {"text"}:
        raise ValueError("must be a text, or an object with the field text only")
    return value["text"]


def _as_rows(value: Any) -> Any:
    return [value] if isinstance(value, list) and value and not isinstance(value[0], list) else value


# Name of the only model, if the request has none.
MODEL = "rrra"
SOME = Field(min_length=1, fail_fast=True)
Name = Annotated[str, Field(max_length=200), AfterValidator(_check_text)]
Text = Annotated[str, AfterValidator(_check_text)]
Vector = Annotated[list[FiniteFloat], SOME, BeforeValidator(_check_dim)]
# The last validator is the first that is called.
Texts = Annotated[
    list[Text],
    SOME,
    _count("queries", "queries"),
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
]
Vectors = Annotated[
    list[Vector],
    SOME,
    _count("queries", "queries"),
    BeforeValidator(_as_rows, json_schema_input_type=list[float] | list[list[float]]),
]
Documents = Annotated[list[Text], SOME, _count("documents", "documents")]
TextsOrObjects = Annotated[
    list[Annotated[Text, BeforeValidator(_text_of, json_schema_input_type=str | dict[Literal["text"], str])]],
    SOME,
    _count("documents", "documents"),
]
Inputs = Annotated[
    list[Text],
    SOME,
    _count("documents", "texts"),
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
]


class Request(BaseModel):
    """A request without unknown fields or type conversions."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _count_fields(cls, values: Any) -> Any:
        # Each unknown field would be an error of its own.
        if isinstance(values, dict):
            _check_at_most(len(values), len(cls.model_fields), "fields")
        return values


class SearchRequest(Request):
    """One or several queries, as texts or embeddings."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"queries": "how do I list files", "top_k": 3},
                {"queries": ["copy a file", "sort lines"], "top_k": 1, "return_documents": True},
                {"queries": "copy a file", "filter": {"lang": "en", "year": {"$gte": 2020}}},
            ]
        }
    )

    queries: Texts | None = Field(
        None,
        validation_alias=AliasChoices("queries", "query"),
        description="A query or a list of queries; also under the name query.",
    )
    query_embeddings: Vectors | None = Field(
        None,
        description="Embeddings of the queries. Without texts, words are neither searched nor read.",
    )
    top_k: int = Field(10, ge=1, description="Number of documents to return per query.")
    depth: int = Field(DEPTH, ge=1, description="Number of documents to rerank per query.")
    mode: Literal["hybrid", "dense"] | None = Field(
        None,
        description="hybrid: search by embeddings and by words. dense: by embeddings. By default, hybrid if "
        "an adapter that reads words reranks.",
    )
    rerank: bool = Field(True, description="Rerank with the adapter, if the retriever has one.")
    probabilities: bool = Field(False, description="Add the probability of relevance to each hit.")
    return_documents: bool = Field(
        False, description="Add the title, the text and the metadata of the document to each hit."
    )
    filter: dict[str, Any] | None = Field(
        None,
        description="Metadata of the documents to search among. Operators are $eq, $ne, $gt, $gte, $lt, "
        "$lte, $in, $nin, $exists, $and, $or and $not.",
    )

    @model_validator(mode="after")
    def _check_queries(self) -> Self:
        texts, embeddings = self.queries, self.query_embeddings
        if texts is None and embeddings is None:
            raise ValueError("queries or query_embeddings must be given")
        if texts is not None and embeddings is not None and len(texts) != len(embeddings):
            raise ValueError(
                "queries and query_embeddings must have the same length, "
                f"got {len(texts)} and {len(embeddings)}"
            )
        return self


class RankRequest(Request):
    """A query and documents to rank."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "sort a list",
                    "documents": ["copy files", "sort the lines"],
                    "return_documents": True,
                }
            ]
        }
    )

    query: Text = Field(description="The query.")
    documents: Documents = Field(description="Texts of the documents.")
    top_k: int | None = Field(None, ge=1, description="Number of documents to return, null for all.")
    return_documents: bool = Field(False, description="Add the text to each document.")


class RerankRequest(Request):
    """A query and documents to rank, as Cohere, Jina and vLLM take them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "sort a list",
                    "documents": ["copy files", {"text": "sort the lines"}],
                    "top_n": 1,
                    "return_documents": True,
                }
            ]
        }
    )

    model: Name = Field(MODEL, description="Any name; it is returned.")
    query: Text = Field(description="The query.")
    documents: TextsOrObjects = Field(description="The documents: texts, or objects with the field text.")
    top_n: int | None = Field(None, ge=1, description="Number of documents to return, null for all.")
    return_documents: bool = Field(False, description="Add the text to each document.")


class EmbeddingsRequest(Request):
    """Texts to encode, as OpenAI takes them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"input": ["copy files", "sort the lines"]},
                {"input": "how do I sort a list", "input_type": "query", "encoding_format": "base64"},
            ]
        }
    )

    model: Name = Field(MODEL, description="Any name; it is returned.")
    input: Inputs = Field(description="A text or a list of texts.")
    input_type: Literal["query", "document"] = Field(
        "document", description="What the texts are. The encoder may have a prompt for each."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="A list of numbers, or base64 of little-endian float32."
    )
    dimensions: int | None = Field(
        None, ge=1, description="Keep only the first so many dimensions, and normalise again; null for all."
    )
    user: Name | None = Field(None, description="Not read.")


class DocumentBody(BaseModel):
    """A document of the index."""

    title: str
    text: str
    metadata: dict[str, Any] | None = Field(None, description="Its metadata, if any documents have them.")


class FoundDocument(BaseModel):
    """A hit."""

    corpus_id: str = Field(description="Id of the document or passage.")
    score: float = Field(
        description="Reranking score; if the document was not reranked, its cosine, or the fused score of a "
        "hybrid search."
    )
    probability: float | None = Field(
        None, description="Probability that the document is relevant, if requested."
    )
    document_id: str | None = Field(None, description="Id of the document, if the hit is a passage.")
    start: int | None = Field(None, description="Position of a passage in the text of its document.")
    document: DocumentBody | None = Field(None, description="The document or passage, if requested.")


class SearchResponse(BaseModel):
    """Hits per query, best first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"results": [[{"corpus_id": "ls", "score": 17.25}]]}]}
    )

    results: list[list[FoundDocument]]


class PlacedDocument(BaseModel):
    """A ranked document."""

    corpus_id: int = Field(description="Position of the document in the request.")
    score: float = Field(description="Reranking score, or the cosine if the retriever has no adapter.")
    text: str | None = Field(None, description="Text of the document, if requested.")


class RankResponse(BaseModel):
    """Ranked documents, best first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"results": [{"corpus_id": 1, "score": 15.5}]}]}
    )

    results: list[PlacedDocument]


class DocumentText(BaseModel):
    """The text of a document."""

    text: str


class RelevantDocument(BaseModel):
    """A ranked document."""

    index: int = Field(description="Position of the document in the request.")
    relevance_score: float = Field(
        description="Between 0 and 1, and greater for documents that are ranked higher: the logistic "
        "function of the reranking score. Not a probability of relevance."
    )
    document: DocumentText | None = Field(None, description="The document, if requested.")


class RerankResponse(BaseModel):
    """Ranked documents, best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": MODEL,
                    "results": [
                        {"index": 1, "relevance_score": 0.97, "document": {"text": "sort the lines"}}
                    ],
                }
            ]
        }
    )

    model: str
    results: list[RelevantDocument]


class Embedding(BaseModel):
    """The embedding of a text."""

    object: Literal["embedding"]
    index: int = Field(description="Position of the text in the request.")
    embedding: list[float] | str


class Usage(BaseModel):
    """Number of tokens that were encoded, without those of prompts; 0 if the encoder has no tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Embeddings in the order of the texts, normalised."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Health(BaseModel):
    """Status of the service."""

    status: str = Field(examples=["ok"])
    documents: int = Field(description="Number of documents in the index.")
    dim: int = Field(description="Dimension of the query embeddings.")
    adapter: bool = Field(description="Whether the retriever has an adapter.")
    needs_texts: bool = Field(description="Whether a search by embeddings also needs the texts.")
    limits: dict[str, float] = Field(description="Limits of the service.")


class Problem(BaseModel):
    """An error."""

    message: str
    field: str | None = Field(None, description="Field of the request, such as `queries.3`.")


class Problems(BaseModel):
    """The first errors of a request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "message": "top_k: must be at most 1000, got 5000",
                    "detail": [{"message": "must be at most 1000, got 5000", "field": "top_k"}],
                }
            ]
        }
    )

    message: str = Field(description="The first error, where clients of OpenAI and Cohere look for it.")
    detail: list[Problem]
