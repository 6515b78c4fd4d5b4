"""Models that decide whether a document is relevant: one file per kind."""

from .base import Cost, Judge, Texts
from .cross_encoder import CrossEncoderJudge
from .openai_chat import OpenAIJudge
from .opening import open_judge

__all__ = ["Cost", "CrossEncoderJudge", "Judge", "OpenAIJudge", "Texts", "open_judge"]
