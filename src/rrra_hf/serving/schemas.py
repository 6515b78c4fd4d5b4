"""Requests and answers, as the documentation of the service shows them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    model_validator,
)
from typing_extensions import Self


def _check_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON can name halves of characters, which no tokenizer reads.
        raise ValueError(f"must be valid Unicode, got half a character at position {error.start}") from error
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_rows(value: Any) -> Any:
    return [value] if isinstance(value, list) and value and not isinstance(value[0], list) else value


Text = Annotated[str, AfterValidator(_check_text)]
Vector = Annotated[list[FiniteFloat], Field(min_length=1)]
Texts = Annotated[
    list[Text], BeforeValidator(_as_list, json_schema_input_type=str | list[str]), Field(min_length=1)
]
Vectors = Annotated[
    list[Vector],
    BeforeValidator(_as_rows, json_schema_input_type=list[float] | list[list[float]]),
    Field(min_length=1),
]


class Request(BaseModel):
    """A request: no other fields, no values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SearchRequest(Request):
    """One query or several, as texts or as embeddings."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"queries": "how do I list files", "top_k": 3},
                {"queries": ["copy a file", "sort lines"], "top_k": 1, "return_documents": True},
            ]
        }
    )

    queries: Texts | None = Field(None, description="A query, or a list of them.")
    query_embeddings: Vectors | None = Field(
        None,
        description="Their embeddings: in place of the texts or, if the adapter reads words, beside.",
    )
    top_k: int = Field(10, ge=1, description="Documents to return a query.")
    depth: int = Field(100, ge=1, description="Documents to rerank a query.")
    rerank: bool = Field(True, description="Rerank with the adapter, if there is one.")
    probabilities: bool = Field(False, description="Give each hit the probability that it is relevant.")
    return_documents: bool = Field(False, description="Give each hit its document's title and text.")

    @model_validator(mode="after")
    def _check_queries(self) -> Self:
        texts, embeddings = self.queries, self.query_embeddings
        if texts is None and embeddings is None:
            raise ValueError("queries or query_embeddings must be given")
        if texts is not None and embeddings is not None and len(texts) != len(embeddings):
            raise ValueError(
                f"queries and query_embeddings must be of one length, got {len(texts)} and {len(embeddings)}"
            )
        return self


class RankRequest(Request):
    """A query and the documents to rank for it."""

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
    documents: list[Text] = Field(min_length=1, description="The documents' texts.")
    top_k: int | None = Field(None, ge=1, description="Documents to return; null for all.")
    return_documents: bool = Field(False, description="Give each its text.")


class DocumentBody(BaseModel):
    """A document of the index."""

    title: str
    text: str


class FoundDocument(BaseModel):
    """A document that was found."""

    corpus_id: str = Field(description="Its id.")
    score: float = Field(description="Its reranking score, or its cosine where it was not reranked.")
    probability: float | None = Field(None, description="If asked for: that it is relevant.")
    document: DocumentBody | None = Field(None, description="If asked for.")


class SearchResponse(BaseModel):
    """What was found for each query, the best first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"results": [[{"corpus_id": "ls", "score": 17.25}]]}]}
    )

    results: list[list[FoundDocument]]


class PlacedDocument(BaseModel):
    """A document that was ranked."""

    corpus_id: int = Field(description="Its position in the request.")
    score: float = Field(description="Its reranking score, or its cosine where there is no adapter.")
    text: str | None = Field(None, description="If asked for.")


class RankResponse(BaseModel):
    """The documents, the best first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"results": [{"corpus_id": 1, "score": 15.5}]}]}
    )

    results: list[PlacedDocument]


class Health(BaseModel):
    """What is served."""

    status: str = Field(examples=["ok"])
    documents: int = Field(description="Documents in the index.")
    dim: int = Field(description="Dimension of the query embeddings.")
    adapter: bool = Field(description="Whether what is found is reranked.")
    needs_texts: bool = Field(description="Whether embeddings need the queries' texts beside them.")
    limits: dict[str, float] = Field(description="What a request may ask for, and how long it may take.")


class Problem(BaseModel):
    """What is wrong."""

    message: str
    field: str | None = Field(None, description="Where in the request, such as `queries.3`.")


class Problems(BaseModel):
    """Everything that is wrong with a request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"detail": [{"message": "must be at most 1000, got 5000", "field": "top_k"}]}]
        }
    )

    detail: list[Problem]
