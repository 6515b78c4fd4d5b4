"""Sharing a saved folder on the Hugging Face Hub: its files, its model card, the upload."""

from .card import Card, model_card
from .files import RepositoryFile, repository_files, size_text, total_size
from .push import files_to_push, push_files, push_folder

__all__ = [
    "Card",
    "RepositoryFile",
    "files_to_push",
    "model_card",
    "push_files",
    "push_folder",
    "repository_files",
    "size_text",
    "total_size",
]
